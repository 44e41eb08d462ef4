"""The daemon's end of a worker's connection: handshake, requests, and many generations at once.

Every request has a `Mailbox`; what the worker proves by answering is noted in a `Pulse`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import TypeVar

import anyio

from ..ipc.channel import Channel, ChannelClosed
from ..ipc.errors import ErrorCode, ErrorData
from ..ipc.framing import (
    Dialect,
    ErrorResponse,
    FrameTooLong,
    Malformed,
    Notification,
    ProtocolError,
    Request,
    Response,
    TruncatedFrame,
    UnexpectedFrame,
)
from ..ipc.messages import (
    PROTOCOL_VERSION,
    Body,
    CacheClear,
    CacheList,
    CacheVerify,
    Cancel,
    Cleared,
    CountTokens,
    Figures,
    Finished,
    Forget,
    Generate,
    Hello,
    Id,
    Load,
    Loaded,
    Measure,
    Noted,
    Pin,
    Prefixes,
    PrefixList,
    Progress,
    Proven,
    Result,
    Speed,
    Statistics,
    Step,
    StoredList,
    TokenCount,
    Warm,
    Warmed,
    WarmedLater,
    Welcome,
    WorkerResult,
)
from .mailbox import Mail, Mailbox
from .pulse import Pulse

FROM_WORKER = Dialect(requests=[Hello], notifications=[Progress, Step, WarmedLater], results=WorkerResult)
"""What a worker may say."""

ANSWERS: Mapping[type[Body], type[Result]] = {
    Load: Loaded,
    Warm: Warmed,
    Generate: Finished,
    CountTokens: TokenCount,
    Statistics: Figures,
    Prefixes: PrefixList,
    Pin: Noted,
    Forget: Noted,
    CacheList: StoredList,
    CacheVerify: Proven,
    CacheClear: Cleared,
    Measure: Speed,
}
"""What answers what."""

OPEN_LIMIT = 1024
"""Unanswered requests from which on a worker refuses more (docs/protocol.md); that is no fault of its engine."""

R = TypeVar("R", bound=Result)


class WorkerLost(Exception):
    """The worker went away before it answered."""


class ProtocolBroken(WorkerLost):
    """It said what has no place in the conversation, or in the wrong version; its process may well live on."""


class VersionMismatch(ProtocolBroken):
    """It speaks another version of the protocol, and will after a restart too."""


class RequestRefused(Exception):
    """The worker answered a request with an error."""

    def __init__(self, code: int, message: str, data: ErrorData) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class WorkerLink:
    """A worker's connection.

    Args:
        channel: The connection, just accepted.
        generation: The worker's.
        on_warmed: Called with what the worker has warmed unasked.

    Attributes:
        pulse: What the worker owes, and when it last proved that it computes.
        stirred: Set when an answer was bad. Whoever waits for it puts a new one in its place.
    """

    def __init__(
        self, channel: Channel, generation: int, on_warmed: Callable[[WarmedLater], None] = lambda _: None
    ) -> None:
        self._channel = channel
        self._on_warmed = on_warmed
        self.generation = generation
        self._ids = count(1)
        self._open: dict[Id, Mailbox] = {}
        self._lost: str | None = None
        self._idle = anyio.Event()
        self.pulse = Pulse()
        self.stirred = anyio.Event()

    @property
    def lost(self) -> bool:
        """The connection ended; no request can be sent any more."""
        return self._lost is not None

    @property
    def running(self) -> int:
        """Requests that were sent and not answered."""
        return len(self._open)

    async def greet(self) -> Hello:
        """Receive hello and answer it. The caller holds the deadline.

        Raises:
            WorkerLost: If the connection ended.
            ProtocolBroken: If something else came.
            VersionMismatch: If it speaks another protocol version.
        """
        try:
            frame = await self._channel.receive()
        except (ChannelClosed, TruncatedFrame) as error:
            raise WorkerLost("the worker closed its connection before hello") from error
        except ProtocolError as error:
            raise ProtocolBroken(f"the worker broke the protocol: {error}") from error
        if not isinstance(frame, Request) or not isinstance(frame.body, Hello):
            raise ProtocolBroken("the worker's first message was not a hello")
        if frame.body.protocol != PROTOCOL_VERSION:
            message = f"the daemon speaks protocol {PROTOCOL_VERSION}, the worker {frame.body.protocol}"
            with suppress(ChannelClosed):  # the refusal is a courtesy: the worker is ended either way
                await self._channel.send(ErrorResponse(frame.id, ErrorCode.UNSUPPORTED_PROTOCOL, message))
            raise VersionMismatch(f"{message}; install the same version of both")
        try:
            welcome = Welcome(protocol=PROTOCOL_VERSION, generation=self.generation)
            await self._channel.send(Response(frame.id, welcome))
        except ChannelClosed as error:
            raise WorkerLost("the worker closed its connection during the handshake") from error
        return frame.body

    async def run(self) -> WorkerLost:
        """Distribute what comes until the connection ends; return how it ended. Open requests end in `WorkerLost`."""
        try:
            while True:
                self._distribute(await self._channel.receive())
        except (ChannelClosed, TruncatedFrame):  # half a frame: it died over it
            end = WorkerLost("the worker closed its connection")
        except ProtocolError as error:
            end = ProtocolBroken(f"the worker broke the protocol: {error}")
        self.lose(str(end))
        return end

    def lose(self, why: str) -> None:
        """End all open requests: the worker is gone."""
        self._lost = self._lost or why
        for mailbox in self._open.values():
            mailbox.end(WorkerLost(self._lost))

    @asynccontextmanager
    async def ask(self, body: Body) -> AsyncIterator[tuple[Id, Mailbox]]:
        """Send a request and read its mail inside the block; leaving the block before its result cancels it.

        Raises:
            WorkerLost: If the connection is gone.
            RequestRefused: If the request can't be sent: over the frame limit, nested too deeply, or no Unicode.
        """
        if self._lost is not None:
            raise WorkerLost(self._lost)
        request_id = next(self._ids)
        mailbox = self._open[request_id] = Mailbox(ANSWERS[type(body)])
        self.pulse.asked(request_id, body, anyio.current_time())
        try:
            await self._send(Request(request_id, body))
            yield request_id, mailbox
        finally:
            if request_id in self._open:
                self._close(request_id)
                # Shielded, because mostly we are leaving by cancellation. The channel bounds how long it takes.
                with anyio.CancelScope(shield=True):
                    await self.cancel(request_id)

    async def call(self, body: Body, result: type[R], on_progress: Callable[[Progress], None] | None = None) -> R:
        """Send a request and wait for its result. The caller holds the deadline.

        Raises:
            WorkerLost: If the worker went away.
            RequestRefused: If it answered with an error.
        """
        async with self.ask(body) as (_, mailbox):
            while True:
                mail = await mailbox.get()
                if isinstance(mail, result):
                    return mail
                if isinstance(mail, Progress) and on_progress is not None:
                    on_progress(mail)

    async def cancel(self, target: Id) -> None:
        """Ask the worker to give up a request; it is answered all the same."""
        with suppress(WorkerLost):  # a worker that is gone has given it up
            await self._send(Notification(Cancel(target=target)))

    async def idle(self) -> None:
        """Wait until no request is open."""
        while self._open:
            if self._idle.is_set():
                self._idle = anyio.Event()
            await self._idle.wait()

    async def _send(self, frame: Request | Notification) -> None:
        try:
            await self._channel.send(frame)
        except ChannelClosed as error:
            raise WorkerLost(self._lost or "the worker closed its connection") from error
        except (FrameTooLong, UnicodeEncodeError, RecursionError) as error:
            why = "it is nested too deeply" if isinstance(error, RecursionError) else error
            raise RequestRefused(
                ErrorCode.INVALID_PROMPT, f"the request can't be sent: {why}", ErrorData()
            ) from error

    def _distribute(self, frame: object) -> None:
        match frame:
            case Notification(body=Step(deltas=deltas)):
                self.pulse.stepped(deltas, anyio.current_time())
                for delta in deltas:
                    self._deliver(delta.target, delta)
            case Notification(body=Progress() as progress):
                self.pulse.heard(anyio.current_time())
                self._deliver(progress.target, progress)
            case Notification(body=WarmedLater() as warmed):
                self.pulse.heard(anyio.current_time())
                self._on_warmed(warmed)
            case Response(id=request_id, result=Result() as result):
                self._answer(request_id, result)
            case ErrorResponse(id=request_id, code=code, message=message, data=data) if request_id is not None:
                self._refuse(request_id, RequestRefused(code, message, data))
            case Malformed(error=error):
                raise ProtocolError(error.message)
            case _:
                raise UnexpectedFrame(f"unexpected {type(frame).__name__}")

    def _refuse(self, request_id: Id, refusal: RequestRefused) -> None:
        if mailbox := self._open.get(request_id):
            if refusal.code == ErrorCode.GENERATION_FAILED and len(self._open) < OPEN_LIMIT:
                self.pulse.failed()
                self.stirred.set()
            mailbox.end(refusal)
            self._close(request_id)

    def _answer(self, request_id: Id, result: Result) -> None:
        self.pulse.answered(request_id, result, anyio.current_time())
        if self.pulse.bad:
            self.stirred.set()
        if mailbox := self._open.get(request_id):
            if not isinstance(result, mailbox.answer):
                expected, got = mailbox.answer.__name__, type(result).__name__
                raise UnexpectedFrame(f"request {request_id} was answered with {got} instead of {expected}")
            mailbox.put(result)
            self._close(request_id)

    def _deliver(self, target: Id, mail: Mail) -> None:
        # No mailbox: late news of a request that was cancelled.
        if mailbox := self._open.get(target):
            mailbox.put(mail)

    def _close(self, request_id: Id) -> None:
        self._open.pop(request_id, None)
        self.pulse.closed(request_id)
        if not self._open:
            self._idle.set()
