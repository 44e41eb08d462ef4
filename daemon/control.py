"""The control socket's server: readiness, status and orders, for the command line and for other programs.

Every connection is one task group with one reader. What can be answered at once is; the rest runs beside, and is
answered when it is done, in any order. A client that doesn't read is dropped, so that nothing is kept for it.
"""

from __future__ import annotations

import errno
import os
import platform
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import structlog
from anyio.abc import SocketAttribute, TaskGroup

from .. import __version__
from ..ipc.channel import Channel, ChannelClosed
from ..ipc.control_messages import Accepted, Changed, Document, VersionReport
from ..ipc.control_requests import (
    CONTROL_REQUESTS,
    Ready,
    Restart,
    Rewarm,
    Status,
    Stop,
    Version,
    WaitReady,
    WarmForget,
    WarmList,
    WarmPin,
    Watch,
)
from ..ipc.errors import RETRYABLE, ErrorCode, ErrorData
from ..ipc.framing import Dialect, ErrorResponse, Frame, Malformed, Notification, ProtocolError, Request, Response
from ..ipc.messages import PROTOCOL_VERSION, Body, CacheClear, CacheList, CacheVerify, Id, Measure
from ..ipc.peer import Peer, peer
from ..ipc.unix_stream import UnixStream, accept_unix
from .rebinding import bound_again, gone
from .steward import Refusal, Steward, is_settled

CONNECTIONS_LIMIT = 4096
"""Open connections: each costs a descriptor, and some 20 KB."""

IN_FLIGHT_LIMIT = 32
"""Unanswered requests of one connection, watches included."""

HALF_CLOSED_GRACE = 5.0
"""Seconds for what is unanswered when the client has sent its last: `printf … | nc -NU` still reads."""

ACCEPT_PAUSE = 0.5
"""Seconds without accepting when descriptors or memory ran out; others may give some back meanwhile."""

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = structlog.get_logger("stoker.control")


class ControlServer:
    """Serves the control socket.

    Args:
        steward: Carries out what is asked.
        identify: Who is at the other end of a socket; only our own user is served.
        connections: Open connections at most; more are refused with a message.
    """

    def __init__(
        self,
        steward: Steward,
        *,
        identify: Callable[[socket.socket], Peer] = peer,
        connections: int = CONNECTIONS_LIMIT,
    ) -> None:
        self._steward = steward
        self._identify = identify
        self._limit = connections
        self._open = 0

    async def serve(self, listener: socket.socket, path: Path | None = None) -> None:
        """Accept connections until cancelled; then all end, between two messages. Closes `listener`.

        Args:
            listener: A bound and listening Unix stream socket.
            path: Where it is bound. If its file goes away it is bound anew; connections that are open go on.
        """
        async with anyio.create_task_group() as connections:
            while True:
                with listener:
                    listener.settimeout(0)
                    async with anyio.create_task_group() as accepting:
                        accepting.start_soon(self._accept_all, listener, connections)
                        await gone(path)
                        accepting.cancel_scope.cancel()
                assert path is not None  # noqa: S101 - without one, nothing goes away
                listener = await bound_again(path)

    async def _accept_all(self, listener: socket.socket, connections: TaskGroup) -> None:
        while True:
            connections.start_soon(self._serve_one, await self._accept(listener))

    async def _accept(self, listener: socket.socket) -> UnixStream:
        while True:
            try:
                return await accept_unix(listener)
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                log.warning("accept paused", cause=error.strerror, connections=self._open)
            await anyio.sleep(ACCEPT_PAUSE)

    async def _serve_one(self, stream: UnixStream) -> None:
        self._open += 1
        try:
            async with Channel(stream, Dialect(requests=CONTROL_REQUESTS)) as channel:
                connection = _Connection(self._steward, channel)
                refusal = self._refusal(stream)
                if refusal is None:
                    await connection.run()
                else:
                    await connection.refuse(ErrorCode.REFUSED, refusal)
        finally:
            self._open -= 1

    def _refusal(self, stream: UnixStream) -> str | None:
        try:
            uid = self._identify(stream.extra_attributes[SocketAttribute.raw_socket]()).uid
        except OSError as error:  # it left already
            return f"the kernel does not tell who you are: {error.strerror}"
        if uid != os.geteuid():
            log.warning("foreign peer refused", uid=uid)
            return f"this daemon serves uid {os.geteuid()} only, and you are uid {uid}"
        if self._open > self._limit:
            return f"{self._limit} connections are open, which is the limit; close one and try again"
        return None


class _Connection:
    """One client."""

    def __init__(self, steward: Steward, channel: Channel) -> None:
        self._steward = steward
        self._channel = channel
        self._in_flight = 0

    async def run(self) -> None:
        """Serve until the client leaves, or breaks the protocol, or stops reading."""
        async with anyio.create_task_group() as group:
            with _ending(group):
                while (frame := await self._receive()) is not None:
                    await self._take(frame, group)
                group.cancel_scope.deadline = anyio.current_time() + HALF_CLOSED_GRACE

    async def refuse(self, code: ErrorCode, message: str) -> None:
        """Say why the connection ends."""
        with suppress(ChannelClosed):  # it ends anyway
            await self._channel.send(ErrorResponse(None, code, message))

    async def _receive(self) -> Frame | Malformed | None:
        """The next frame; None when the client has sent its last."""
        try:
            return await self._channel.receive()
        except ChannelClosed:
            return None
        except ProtocolError as error:
            await self.refuse(ErrorCode.INVALID_REQUEST, str(error))
            raise ChannelClosed from error

    async def _take(self, frame: Frame | Malformed, group: TaskGroup) -> None:
        match frame:
            case Request(id=request_id, body=Ready()):
                await self._channel.send(Response(request_id, self._steward.board.current))
            case Request(id=request_id, body=Version()):
                await self._channel.send(Response(request_id, _version()))
            case Request(id=request_id) if self._in_flight >= IN_FLIGHT_LIMIT:
                await self._channel.send(_too_many(request_id))
            case Request():
                self._in_flight += 1
                group.start_soon(self._answer, frame, group)
            case Malformed(error=error, answerable=True):
                await self._channel.send(error)
            case Malformed():
                pass  # a notification, or an answer to nothing: the spec forbids an answer
            case _:
                await self.refuse(ErrorCode.INVALID_REQUEST, "nothing was asked of you: send requests only")
                raise ChannelClosed

    async def _answer(self, request: Request, group: TaskGroup) -> None:
        try:
            with _ending(group):
                await self._carry_out(request)
        finally:
            self._in_flight -= 1

    async def _carry_out(self, request: Request) -> None:
        try:
            if isinstance(request.body, Watch):
                await self._watch(request)
            elif isinstance(request.body, Stop):
                with anyio.CancelScope(shield=True):  # stopping cancels us, and the client is to hear that it began
                    await self._steward.stop()
                    await self._channel.send(Response(request.id, Accepted()))
            else:
                await self._channel.send(Response(request.id, await self._result(request.body)))
        except ChannelClosed:
            raise
        except Refusal as error:
            data = ErrorData(retryable=error.code in RETRYABLE, remedy=error.remedy)
            await self._channel.send(ErrorResponse(request.id, error.code, error.message, data))
        except Exception:
            # A fault in one answer must not take the daemon, and its worker, down: the log has it whole.
            log.exception("control request failed", method=request.body.METHOD)
            await self._channel.send(ErrorResponse(request.id, ErrorCode.INTERNAL_ERROR, "failed; see `stoker logs`"))

    async def _result(self, body: Body) -> Document:
        match body:
            case WaitReady() | Status() | Measure():
                return await self._state(body)
            case Rewarm(prompts=prompts):
                return await self._steward.rewarm(prompts)
            case WarmList() | WarmPin() | WarmForget():
                return await self._known_prefixes(body)
            case CacheList() | CacheVerify() | CacheClear():
                return await self._stored_prefixes(body)
            case Restart(cold=cold):
                await self._steward.restart(cold=cold)
        return Accepted()

    async def _state(self, body: WaitReady | Status | Measure) -> Document:
        match body:
            case WaitReady(timeout=timeout):
                return await self._steward.board.wait(is_settled, max(0.0, timeout))
            case Status():
                return await self._steward.status()
        return await self._steward.measure()

    async def _known_prefixes(self, body: WarmList | WarmPin | WarmForget) -> Document:
        match body:
            case WarmPin(name=name, pinned=pinned):
                return await self._steward.warm_pin(name, pinned=pinned)
            case WarmForget(name=forgotten):
                return await self._steward.warm_forget(forgotten)
        return await self._steward.warm_list()

    async def _stored_prefixes(self, body: CacheList | CacheVerify | CacheClear) -> Document:
        match body:
            case CacheVerify(key=key):
                return await self._steward.cache_verify(key)
            case CacheClear(name=name, foreign=foreign):
                return await self._steward.cache_clear(name, foreign=foreign)
        return await self._steward.cache_list()

    async def _watch(self, request: Request) -> None:
        first = True
        async for readiness in self._steward.board.watch():
            if first:
                await self._channel.send(Response(request.id, readiness))
            else:
                await self._channel.send(Notification(Changed(readiness=readiness)))
            first = False


@contextmanager
def _ending(group: TaskGroup) -> Iterator[None]:
    """Where one task finds the connection gone, all its tasks end."""
    try:
        yield
    except ChannelClosed:
        group.cancel_scope.cancel()


def _too_many(request_id: Id) -> ErrorResponse:
    message = f"{IN_FLIGHT_LIMIT} requests of this connection are unanswered, which is the limit"
    data = ErrorData(retryable=True, remedy="wait for an answer, or open another connection")
    return ErrorResponse(request_id, ErrorCode.REFUSED, message, data)


def _version() -> VersionReport:
    return VersionReport(version=__version__, protocol=PROTOCOL_VERSION, python=platform.python_version())
