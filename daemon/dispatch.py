"""Which generation serves a request: waiting, admission, and going on after a lost worker.

A request waits for a ready worker within two bounds, of time and of number, in the order of arrival. If its worker
dies, it goes on with the next generation from the tokens already produced; whoever reads the events sees only a
pause. A request that itself kills workers is found out (see `suspects`), and fails alone.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import anyio
import msgspec

from ..ipc.errors import ErrorCode
from ..ipc.messages import CountTokens, Delta, Finished, Generate, Progress, TokenCount
from .admission import Admission, Limits, RequestFailed, Tally, Unavailable, Waiting
from .link import RequestRefused, WorkerLink, WorkerLost
from .mailbox import Mail
from .readiness import Board
from .records import Records, Row, short
from .waiting_room import Ticket

__all__ = [
    "Dispatch",
    "Limits",
    "Output",
    "PrefillProgress",
    "RequestFailed",
    "Started",
    "Tally",
    "Unavailable",
    "Waiting",
]


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


class Dispatch:
    """Gives requests to whichever worker serves.

    Args:
        board: Says when a worker is ready, and whether waiting for one is in vain.
        serving: The link of the ready worker, or None.
        last_words: Of the last worker that died.
        limits: Bounds of waiting.
        cause: Why a generation ended, in words; None while it is not known to have ended. Without this, a lost
            connection is all that is known, and nobody is blamed for it.
    """

    def __init__(
        self,
        board: Board,
        serving: Callable[[], WorkerLink | None],
        last_words: Callable[[], tuple[str, ...]],
        limits: Limits,
        cause: Callable[[int], str | None] | None = None,
    ) -> None:
        self._admission = Admission(board, serving, last_words, limits, cause)
        self.records = Records()

    def bound(self, limits: Limits) -> None:
        """Other bounds from now on."""
        self._admission.bound(limits)

    @property
    def tally(self) -> Tally:
        """What became of the requests so far."""
        return self._admission.tally

    @asynccontextmanager
    async def generate(self, body: Generate) -> AsyncIterator[AsyncIterator[Output]]:
        """Serve a request: iterate inside the block; leaving it early cancels the generation in the worker.

        Iterating yields `Waiting` while no worker has the request, at once and whenever phase or place changes;
        `Started` once, `PrefillProgress`, `Delta`s, and `Finished` as the last. It raises `Unavailable` if no
        worker is ready in time or too many were lost, and `RequestFailed` if the worker refuses the request, or
        if the request ends workers.
        """
        row = self.records.open()
        counted = _Counted(self._serve(_with_seed(body), row), self.tally, self.records, row)
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
        ticket = self._admission.ticket()
        try:
            while True:
                while self._admission.must_wait(ticket):
                    await self._admission.news(ticket)
                if (tokens := await self._counted(body, ticket)) is not None:
                    return tokens
        finally:
            self._admission.end(ticket)
            self.tally.running -= 1

    async def _counted(self, body: CountTokens, ticket: Ticket) -> int | None:
        """What the worker says; None if it is to be asked again."""
        try:
            ticket.case.sent = True
            return (await _link(ticket).call(body, TokenCount)).tokens
        except RequestRefused as refusal:
            self._admission.refused(ticket, refusal)
        except WorkerLost as loss:
            self._admission.lost(ticket, loss)
        return None

    async def _serve(self, body: Generate, row: Row) -> AsyncGenerator[Output, None]:
        # No cancel scope is open at a `yield`: it would end in another task than it began in.
        admission = self._admission
        emitted = list(body.emitted)
        started = False
        ticket = admission.ticket()
        try:
            while True:
                while (waiting := admission.must_wait(ticket)) is not None:
                    yield waiting
                    await admission.news(ticket)
                try:
                    async with _link(ticket).ask(_resumed(body, emitted)) as (_, mailbox):
                        ticket.case.sent = True
                        row.given(_link(ticket).generation)
                        output: Output | None = None
                        while not isinstance(output, Finished):
                            output = _output(await mailbox.get(), started=started)
                            started = started or isinstance(output, Started)
                            if isinstance(output, Delta):
                                emitted.extend(output.tokens)
                                admission.advance(ticket, len(output.tokens))
                            elif isinstance(output, Finished):
                                for held in output.held:
                                    yield held
                            yield output
                        return
                except RequestRefused as refusal:
                    admission.refused(ticket, refusal)
                except WorkerLost as loss:
                    admission.lost(ticket, loss)
        finally:
            admission.end(ticket)


class _Counted:
    """The outputs of one request, and its place in the tally from the first look to the end."""

    def __init__(self, outputs: AsyncGenerator[Output, None], tally: Tally, records: Records, row: Row) -> None:
        self._outputs = outputs
        self._tally = tally
        self._records = records
        self._row = row
        self._finished = False
        self._failed = False
        tally.running += 1

    def __aiter__(self) -> AsyncIterator[Output]:
        return self

    async def __anext__(self) -> Output:
        try:
            output = await anext(self._outputs)
        except (Unavailable, RequestFailed) as error:
            self._failed = True
            self._row.cause = short(_cause(error))
            raise
        self._finished = isinstance(output, Finished)
        _note(self._row, output)
        return output

    async def aclose(self) -> None:
        """Count how it went, and give the request up if it still runs."""
        self._tally.running -= 1
        self._tally.served += self._finished
        self._tally.failed += self._failed
        self._tally.cancelled += not (self._finished or self._failed)
        self._records.close(self._row, "served" if self._finished else "failed" if self._failed else "cancelled")
        await self._outputs.aclose()


def _note(row: Row, output: Output) -> None:
    match output:
        case Delta():  # the first, for it comes most often by far
            row.tokens(len(output.tokens))
        case PrefillProgress(done, total):
            row.prefill(done, total)
        case Started(cached, total):
            row.admitted(total, cached)
        case Waiting():
            row.waits(output.ahead)
        case Finished(usage=usage):
            row.finished(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)


def _cause(error: Unavailable | RequestFailed) -> str:
    """Why it failed. What a worker says of a request may quote it, so that only the kind of it is kept."""
    if isinstance(error, Unavailable):
        return error.reason.partition("; the last: ")[0]
    return ErrorCode(error.code).name.lower() if error.code in {*ErrorCode} else str(error.code)


def _link(ticket: Ticket) -> WorkerLink:
    assert ticket.link is not None  # noqa: S101 - `must_wait` said so
    return ticket.link


def _resumed(body: Generate, emitted: list[int]) -> Generate:
    return msgspec.structs.replace(body, emitted=tuple(emitted))


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
