"""Which generation serves a request: waiting, admission, and going on after a lost worker.

A request waits for a ready worker within two bounds, of time and of number. If its worker dies, it goes on with
the next generation from the tokens already produced; whoever reads the events sees only a pause.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import anyio
import msgspec

from ..ipc.control_messages import RequestCounts
from ..ipc.errors import ErrorCode, ErrorData
from ..ipc.messages import CountTokens, Delta, Finished, Generate, Progress, TokenCount
from .link import Mail, RequestRefused, WorkerLink, WorkerLost
from .readiness import Board


@dataclass(frozen=True, slots=True)
class Waiting:
    """No worker is ready yet: the phase that the machine is in, and how many requests wait before this one."""

    phase: str
    ahead: int


@dataclass(frozen=True, slots=True)
class Started:
    """The worker admitted the request: so many of the prompt's tokens need no prefill."""

    cached_tokens: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class PrefillProgress:
    """So many of the prompt's tokens are in the cache now."""

    done: int
    total: int


Output: TypeAlias = Waiting | Started | PrefillProgress | Delta | Finished


class Unavailable(Exception):
    """No worker will serve the request now. `full` if too many wait already."""

    def __init__(
        self, reason: str, *, retry_after: float | None = None, last_words: tuple[str, ...] = (), full: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.last_words = last_words
        self.full = full


class RequestFailed(Exception):
    """The worker says no to this request, and would again."""

    def __init__(self, code: int, message: str, data: ErrorData) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of waiting: `max_waiting` requests, `wait_timeout` seconds each; `attempts` workers for one request."""

    max_waiting: int = 64
    wait_timeout: float = 300.0
    attempts: int = 3


@dataclass
class Tally:
    """Counts of requests since the daemon's start. One that waits is not also counted as running."""

    running: int = 0
    waiting: int = 0
    served: int = 0
    resumed: int = 0
    cancelled: int = 0
    failed: int = 0

    def snapshot(self) -> RequestCounts:
        """The public form."""
        return RequestCounts(**vars(self))


class Dispatch:
    """Gives requests to whichever worker serves.

    Args:
        board: Says when a worker is ready, and whether waiting for one is in vain.
        serving: The link of the ready worker, or None.
        last_words: Of the last worker that died.
        limits: Bounds of waiting.
    """

    def __init__(
        self,
        board: Board,
        serving: Callable[[], WorkerLink | None],
        last_words: Callable[[], tuple[str, ...]],
        limits: Limits,
    ) -> None:
        self._board = board
        self._serving = serving
        self._last_words = last_words
        self._limits = limits
        self.tally = Tally()

    @asynccontextmanager
    async def generate(self, body: Generate) -> AsyncIterator[AsyncIterator[Output]]:
        """Serve a request: iterate inside the block; leaving it early cancels the generation in the worker.

        Iterating yields `Started` once, `PrefillProgress`, `Delta`s, and `Finished` as the last. It raises
        `Unavailable` if no worker is ready in time or the attempts are used up, and `RequestFailed` if the worker
        refuses the request.
        """
        counted = _Counted(self._serve(_with_seed(body)), self.tally)
        try:
            yield counted
        finally:
            # The worker's request is open inside the generator; closed here, the worker hears of it at once.
            with anyio.CancelScope(shield=True):
                await counted.aclose()

    async def count_tokens(self, body: CountTokens) -> int:
        """How many tokens a prompt has; waits for a worker like a generation.

        Raises:
            Unavailable: No worker is ready in time.
            RequestFailed: The worker refuses the prompt.
        """
        self.tally.running += 1
        try:
            return await self._counted(body)
        except RequestRefused as refusal:
            raise RequestFailed(refusal.code, str(refusal), refusal.data) from refusal
        finally:
            self.tally.running -= 1

    async def _counted(self, body: CountTokens) -> int:
        lost = 0
        for attempt in range(self._limits.attempts):
            link = await self._ready_link(lost, accepted=attempt > 0)
            try:
                return (await link.call(body, TokenCount)).tokens
            except WorkerLost:
                lost = link.generation
        raise self._unavailable(f"{self._limits.attempts} workers in a row were lost before they had counted")

    async def _serve(self, body: Generate) -> AsyncGenerator[Output, None]:
        emitted = list(body.emitted)
        started = False
        generation = 0
        why = ""
        for attempt in range(self._limits.attempts):
            link = await self._ready_link(generation, accepted=attempt > 0)
            self.tally.resumed += attempt > 0
            try:
                async with link.ask(msgspec.structs.replace(body, emitted=tuple(emitted))) as (_, mailbox):
                    output: Output | None = None
                    while not isinstance(output, Finished):
                        output = _output(await mailbox.get(), started=started)
                        started = started or isinstance(output, Started)
                        if isinstance(output, Delta):
                            emitted.extend(output.tokens)
                        yield output
                    return
            except RequestRefused as refusal:
                if refusal.code != ErrorCode.GENERATION_FAILED:
                    raise RequestFailed(refusal.code, str(refusal), refusal.data) from refusal
                why = str(refusal)
            except WorkerLost as loss:
                generation = link.generation
                why = str(loss)
        raise Unavailable(
            f"{self._limits.attempts} workers in a row failed under this request; the last: {why}",
            last_words=self._last_words(),
        )

    async def _ready_link(self, lost: int, *, accepted: bool) -> WorkerLink:
        """The link of a ready worker of a generation after `lost`; waits within the limits.

        A request that was `accepted` once is let into a full waiting room: it must be answered.
        """
        link = self._serving()
        if link is not None and link.generation > lost:
            return link
        if not accepted and self.tally.waiting >= self._limits.max_waiting:
            raise self._unavailable(f"{self.tally.waiting} requests are already waiting for the worker", full=True)
        self.tally.waiting += 1
        self.tally.running -= 1
        try:
            with anyio.move_on_after(self._limits.wait_timeout):
                async for readiness in self._board.watch():
                    link = self._serving()
                    if link is not None and link.generation > lost:
                        return link
                    if not readiness.expected:
                        raise self._unavailable(readiness.reason or f"the worker is {readiness.phase}")
        finally:
            self.tally.waiting -= 1
            self.tally.running += 1
        raise self._unavailable(f"no worker was ready within {self._limits.wait_timeout:g} s")

    def _unavailable(self, reason: str, *, full: bool = False) -> Unavailable:
        retry_after = self._board.current.retry_after
        return Unavailable(reason, retry_after=retry_after, last_words=self._last_words(), full=full)


class _Counted:
    """The outputs of one request, and its place in the tally from the first look to the end."""

    def __init__(self, outputs: AsyncGenerator[Output, None], tally: Tally) -> None:
        self._outputs = outputs
        self._tally = tally
        self._finished = False
        self._failed = False
        tally.running += 1

    def __aiter__(self) -> AsyncIterator[Output]:
        return self

    async def __anext__(self) -> Output:
        try:
            output = await anext(self._outputs)
        except (Unavailable, RequestFailed):
            self._failed = True
            raise
        self._finished = isinstance(output, Finished)
        return output

    async def aclose(self) -> None:
        """Count how it went, and give the request up if it still runs."""
        self._tally.running -= 1
        self._tally.served += self._finished
        self._tally.failed += self._failed
        self._tally.cancelled += not (self._finished or self._failed)
        await self._outputs.aclose()


def _output(mail: Mail, *, started: bool) -> Output:
    """A mail in the terms of the gateway. The first progress means that the worker admitted the request."""
    match mail:
        case Progress(done=done, total=total, cached=cached):
            return PrefillProgress(done, total) if started else Started(cached, total)
        case Finished() | Delta():
            return mail
        case other:
            raise WorkerLost(f"the worker answered generate with {type(other).__name__}")


def _with_seed(body: Generate) -> Generate:
    """Without a seed the next worker could not go on where this one died; so one is drawn here."""
    if body.sampling.temperature == 0 or body.sampling.seed is not None:
        return body
    sampling = msgspec.structs.replace(body.sampling, seed=secrets.randbits(32))
    return msgspec.structs.replace(body, sampling=sampling)
