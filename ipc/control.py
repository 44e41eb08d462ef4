"""The client of the control socket: what the command line and other programs ask the daemon with.

    async with connect(path) as client:
        readiness = await client.ready()

Errors: `ClientError` > `DaemonAbsent`, `NoAnswer`, `ControlError`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import TypeVar

import anyio
import msgspec
from anyio.abc import SocketAttribute

from .channel import Channel, ChannelClosed
from .control_messages import (
    Accepted,
    Changed,
    Clearance,
    Counted,
    Document,
    Measurement,
    PrefixListing,
    Readiness,
    RewarmReport,
    StatusReport,
    StoredListing,
    Verification,
    VersionReport,
)
from .control_requests import (
    ControlRequest,
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
from .errors import ErrorCode
from .framing import Dialect, ErrorResponse, Frame, Malformed, Notification, ProtocolError, Request, Response
from .messages import CacheClear, CacheList, CacheVerify, Id, Measure, WarmPrefix
from .peer import Peer, peer
from .unix_stream import connect_unix

CALL_TIMEOUT = 10.0
"""Seconds for an answer that the daemon gives at once, unless the caller sets another deadline."""

CLEAR_TIMEOUT = 60.0
"""Seconds for files to be deleted, a save that is under way included."""

CONNECT_TIMEOUT = 5.0
"""Seconds for the daemon to accept; it may have a thousand others in its backlog."""

LONGEST_WAIT = 1e9
"""Seconds asked for at most: JSON has no infinity."""

DOCUMENT = TypeVar("DOCUMENT", bound=Document)


class ClientError(Exception):
    """The daemon could not be asked, or said no. The message is for a person, with the remedy."""


class DaemonAbsent(ClientError):
    """No daemon listens, or it went away."""


class NoAnswer(ClientError):
    """The daemon is connected, but did not answer in time, or with what can't be understood."""


class ControlError(ClientError):
    """The daemon's answer is an error."""

    def __init__(self, code: int, message: str, remedy: str | None = None) -> None:
        super().__init__(f"{message}; {remedy}" if remedy else message)
        self.code = code
        self.message = message
        self.remedy = remedy


@asynccontextmanager
async def connect(path: Path, within: float = CALL_TIMEOUT) -> AsyncIterator[ControlClient]:
    """A connected client, closed at the end of the block.

    Args:
        path: The control socket.
        within: Seconds for each answer that is not one to wait for.

    Raises:
        DaemonAbsent: If nobody listens there.
        NoAnswer: If it isn't accepted in time.
        ClientError: If the socket may not be used.
    """
    try:
        with anyio.fail_after(CONNECT_TIMEOUT):
            stream = await connect_unix(path)
    except (FileNotFoundError, ConnectionError, NotADirectoryError) as error:
        raise DaemonAbsent(f"no daemon answers at {path}; start one with `stoker run`") from error
    except TimeoutError as error:
        raise NoAnswer(f"the daemon at {path} accepts no connection; look at `stoker logs`") from error
    except OSError as error:
        raise ClientError(f"cannot use the socket {path}: {error.strerror or error}; set --socket") from error
    async with Channel(stream, Dialect(notifications=[Changed])) as channel:
        yield ControlClient(channel, peer(stream.extra_attributes[SocketAttribute.raw_socket]()), within)


class ControlClient:
    """Asks one thing at a time. For questions at the same time, connect again: a connection is cheap.

    Each call raises `DaemonAbsent` if the daemon goes away, `NoAnswer` after its deadline, `ControlError` if the
    daemon refuses. After a deadline the client can be used further; the late answer is dropped.
    """

    def __init__(self, channel: Channel, daemon: Peer, within: float = CALL_TIMEOUT) -> None:
        self.daemon = daemon
        self._channel = channel
        self._within = within
        self._ids = count(1)
        self._asking = anyio.Lock()

    async def ready(self) -> Readiness:
        """Whether the service is ready, now."""
        return await self._call(Ready(), Readiness, self._within)

    async def wait_ready(self, within: float) -> Readiness:
        """The snapshot at the moment of ready or failed, or after `within` seconds."""
        seconds = min(within, LONGEST_WAIT)
        return await self._call(WaitReady(timeout=seconds), Readiness, seconds + self._within)

    async def status(self) -> StatusReport:
        """Everything the daemon knows."""
        return await self._call(Status(), StatusReport, self._within)

    async def version(self) -> VersionReport:
        """Versions of the daemon and its protocol."""
        return await self._call(Version(), VersionReport, self._within)

    async def restart(self, *, cold: bool = False) -> None:
        """Have the worker replaced; returns when that is under way. `cold` skips the warmup."""
        await self._call(Restart(cold=cold), Accepted, self._within)

    async def rewarm(self, prompts: tuple[WarmPrefix, ...] = (), within: float = 600.0) -> RewarmReport:
        """Warm again, the standard prompts or these; returns when done, and raises `NoAnswer` after `within`."""
        return await self._call(Rewarm(prompts=prompts), RewarmReport, within)

    async def warm_list(self) -> PrefixListing:
        """Which prefixes are warm or learned."""
        return await self._call(WarmList(), PrefixListing, self._within)

    async def warm_pin(self, name: str, *, pinned: bool = True) -> int:
        """Warm a learned prefix at every start, or no longer; returns how many have that name, never 0."""
        return (await self._call(WarmPin(name=name, pinned=pinned), Counted, self._within)).count

    async def warm_forget(self, name: str | None = None) -> int:
        """Forget a learned prefix, or all of every model; returns how many. 0 only where all were meant."""
        return (await self._call(WarmForget(name=name), Counted, self._within)).count

    async def cache_list(self) -> StoredListing:
        """What is on disk."""
        return await self._call(CacheList(), StoredListing, self._within)

    async def cache_verify(self, key: str | None = None, within: float = 600.0) -> Verification:
        """Have one stored prefix read and compared, or all; returns when done, `NoAnswer` after `within` seconds."""
        return await self._call(CacheVerify(key=key), Verification, within)

    async def cache_clear(self, name: str | None = None, *, foreign: bool = False) -> Clearance:
        """Delete stored prefixes: all, those of a name or a key, or only those that the loaded model can't use."""
        return await self._call(CacheClear(name=name, foreign=foreign), Clearance, CLEAR_TIMEOUT)

    async def measure(self) -> Measurement:
        """How fast the machine computes for the worker; refused while that has something else to do."""
        return await self._call(Measure(), Measurement, self._within)

    async def stop(self) -> None:
        """Have the daemon stop; returns when that is under way. `closed` then waits for it."""
        await self._call(Stop(), Accepted, self._within)

    async def closed(self) -> None:
        """Return when the daemon has closed the connection. It has no deadline of its own."""
        try:
            while True:
                await self._receive()
        except ClientError:
            return  # what was waited for

    async def watch(self) -> AsyncGenerator[Readiness, None]:
        """The current snapshot, then each that follows; no other call is possible until the generator is closed.

        Raises:
            DaemonAbsent: When the daemon goes away.
        """
        yield await self._call(Watch(), Readiness, self._within)
        async with self._asking:
            while True:
                match await self._receive():
                    case Notification(body=Changed(readiness=readiness)):
                        yield readiness
                    case _:
                        pass  # the late answer to a question that was given up

    async def _call(self, body: ControlRequest, kind: type[DOCUMENT], within: float) -> DOCUMENT:
        async with self._asking:
            with anyio.move_on_after(within):
                request_id = next(self._ids)
                await self._send(Request(request_id, body))
                return _result(await self._answer(request_id), kind)
        raise NoAnswer(f"the daemon did not answer `{body.METHOD}` within {within:g} s; look at `stoker logs`")

    async def _answer(self, request_id: Id) -> Response | ErrorResponse:
        while True:
            match await self._receive():
                case Response(id=answered) as answer if answered == request_id:
                    return answer
                case ErrorResponse(id=answered) as refusal if answered in {request_id, None}:
                    return refusal
                case _:
                    pass  # a notification after an earlier `watch`, or a late answer

    async def _send(self, request: Request) -> None:
        try:
            await self._channel.send(request)
        except ChannelClosed:
            return  # it may have said why before it closed: the answer is read next, and if there is none, raises
        except ProtocolError as error:
            raise ControlError(ErrorCode.INVALID_REQUEST, str(error)) from error

    async def _receive(self) -> Frame | Malformed:
        try:
            return await self._channel.receive()
        except ChannelClosed as error:
            raise DaemonAbsent("the daemon went away; `stoker logs` may say why") from error
        except ProtocolError as error:
            raise DaemonAbsent(f"the daemon broke off: {error}") from error


def _result(answer: Response | ErrorResponse, kind: type[DOCUMENT]) -> DOCUMENT:
    if isinstance(answer, ErrorResponse):
        raise ControlError(answer.code, answer.message, answer.data.remedy)
    if not isinstance(answer.result, msgspec.Raw):
        raise NoAnswer("unreadable answer")
    try:
        return msgspec.json.decode(answer.result, type=kind)
    except msgspec.DecodeError as error:
        raise NoAnswer(f"the daemon's answer can't be read ({error}); is it another version?") from error
