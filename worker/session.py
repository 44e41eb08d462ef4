"""One connection with the daemon: hello, then requests in and answers out, until one of the two leaves."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import threading
from collections.abc import Callable

import anyio

from .. import __version__
from ..ipc.channel import Channel, ChannelClosed
from ..ipc.errors import ErrorCode
from ..ipc.framing import (
    Dialect,
    ErrorResponse,
    Frame,
    Malformed,
    Notification,
    Request,
    Response,
    TruncatedFrame,
    UnexpectedFrame,
)
from ..ipc.messages import (
    PROTOCOL_VERSION,
    Cancel,
    Hello,
    Id,
    Job,
    Welcome,
)
from .engine import JOBS, Emit, Engine
from .errors import GenerationFailed, InvalidRequest

log = logging.getLogger(__name__)

DIALECT = Dialect(requests=JOBS, notifications=(Cancel,), results=Welcome)
"""What the daemon may say."""

HELLO_ID = 0
HELLO_SECONDS = 30.0
"""How long the daemon may take to answer hello; it has nothing else to do for this worker."""
MOST_UNSENT = 256
"""Frames between engine and socket; the engine waits when the daemon lags by more."""
MOST_OPEN = 1024
"""Requests unanswered at a time: far above what the daemon lets through, so this only bounds memory."""


class Unwelcome(Exception):
    """The daemon refused this worker: another one of the same installation fares no better."""


async def introduce(channel: Channel) -> Welcome:
    """Say hello and wait for the welcome.

    Raises:
        Unwelcome: The daemon speaks another protocol version, or refused otherwise.
        UnexpectedFrame: It said something else first.
        ChannelClosed: It left.
        TimeoutError: It said nothing.
    """
    hello = Hello(protocol=PROTOCOL_VERSION, pid=os.getpid(), stoker=__version__, python=platform.python_version())
    with anyio.fail_after(HELLO_SECONDS):
        await channel.send(Request(HELLO_ID, hello))
        answer = await channel.receive()
    match answer:
        case Response(id=0, result=Welcome() as welcome):
            if welcome.protocol != PROTOCOL_VERSION:
                raise Unwelcome(f"the daemon speaks protocol {welcome.protocol}, this worker {PROTOCOL_VERSION}")
            return welcome
        case ErrorResponse(message=message):
            raise Unwelcome(f"the daemon refused this worker: {message}")
        case _:
            raise UnexpectedFrame(f"the daemon answered hello with a {type(answer).__name__}")


class Outbox:
    """Frames on their way from the engine's threads to the socket. Make it on the event loop's thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(MOST_UNSENT)
        self._in, self.frames = anyio.create_memory_object_stream[Frame](MOST_UNSENT)

    def put(self, frame: Frame) -> None:
        """Take a frame from another thread; waits for room.

        The wait has no deadline of its own: it ends when the daemon reads on, or leaves and the process with it.
        """
        self._room.acquire()
        try:
            self._loop.call_soon_threadsafe(self._deliver, frame)
        except RuntimeError:
            log.debug("a frame came after the event loop had ended")  # the process is about to

    def sent(self) -> None:
        """A frame has left."""
        self._room.release()

    def close(self) -> None:
        """Drop what is unsent, and what still comes."""
        self._in.close()
        self.frames.close()

    def _deliver(self, frame: Frame) -> None:
        try:
            self._in.send_nowait(frame)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            self.sent()  # nobody is there to read it; but the engine's thread shall not hang


class Session:
    """Serves a connection after the welcome.

    Args:
        channel: The connection.
        engine: Makes the engine, given where its answers go.
    """

    def __init__(self, channel: Channel, engine: Callable[[Emit], Engine]) -> None:
        self._channel = channel
        self._outbox = Outbox()
        self._engine = engine(self._outbox.put)
        self._open: set[Id] = set()
        self._cancelled: set[Id] = set()

    async def serve(self) -> None:
        """Serve until the daemon leaves.

        Raises:
            FrameTooLong: What the daemon sends can't be read any further.
        """
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._send, tasks.cancel_scope)
                await self._receive()
                tasks.cancel_scope.cancel()
        finally:
            self._engine.close()
            self._outbox.close()

    async def _receive(self) -> None:
        while True:
            try:
                frame = await self._channel.receive()
            except (ChannelClosed, TruncatedFrame):
                return
            try:
                await self._take(frame)
            except ChannelClosed:
                return

    async def _send(self, scope: anyio.CancelScope) -> None:
        async for frame in self._outbox.frames:
            if isinstance(frame, Response | ErrorResponse) and frame.id is not None:
                self._open.discard(frame.id)
                self._cancelled.discard(frame.id)
            try:
                await self._channel.send(frame)
            except ChannelClosed:
                scope.cancel()
                return
            self._outbox.sent()

    async def _take(self, frame: Frame | Malformed) -> None:
        match frame:
            case Request(id=request_id, body=body) if isinstance(body, Job):
                if refusal := self._refusal(request_id):
                    await self._channel.send(refusal)
                    return
                self._open.add(request_id)
                self._engine.submit(request_id, body)
            case Notification(body=Cancel(target=target)):
                # One cancel for each open request: more would only pile up while the engine computes.
                if target in self._open - self._cancelled:
                    self._cancelled.add(target)
                    self._engine.cancel(target)
            case Malformed(error=error):
                log.warning("the daemon sent what this worker doesn't understand: %s", error.message)
                if frame.answerable:
                    await self._channel.send(error)
            case _:
                log.warning("the daemon answered what was not asked")

    def _refusal(self, request_id: Id) -> ErrorResponse | None:
        if request_id in self._open:
            error = InvalidRequest(f"the id {request_id!r} belongs to a request that is still open")
            return ErrorResponse(request_id, ErrorCode.INVALID_REQUEST, error.message)
        if len(self._open) >= MOST_OPEN:
            busy = GenerationFailed(f"{MOST_OPEN} requests are open, which is the limit", remedy="try again later")
            return busy.response(request_id)
        return None
