"""Which waiting request goes to a worker, and when: the edge around `waiting_room`, `suspects` and `outage`.

Everything is decided in `_look`, which runs whenever a snapshot is published or the line changes; who waits only
hears the bell of its own ticket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import anyio

from ..ipc.control_messages import Readiness, RequestCounts
from ..ipc.errors import ErrorCode, ErrorData
from .link import RequestRefused, WorkerLink, WorkerLost
from .outage import Outage
from .readiness import Board
from .suspects import Ledger, is_from_outside
from .waiting_room import Ticket, WaitingRoom

POISON_REMEDY = "send it again only after a change: `stoker logs --worker` has what the workers said"


@dataclass(frozen=True, slots=True)
class Waiting:
    """No worker has the request yet: the phase that the machine is in, and how many requests go before this one."""

    phase: str
    ahead: int


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
    """The worker says no to this request, and would again; or the request ends workers."""

    def __init__(self, code: int, message: str, data: ErrorData) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of waiting and of going on.

    Attributes:
        max_waiting: New requests that may wait; resumed ones always may.
        wait_timeout: Seconds of one wait.
        attempts: Workers lost in a row under a request that gets no further, for causes that are nobody's fault.
        resume_timeout: Seconds after its arrival in which a request that lost its worker may get another. An answer
            that runs is not cut by it.
    """

    max_waiting: int = 64
    wait_timeout: float = 300.0
    attempts: int = 3
    resume_timeout: float = 3600.0


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


class Admission:
    """Lets requests in, in their order. The arguments are those of `Dispatch`."""

    def __init__(
        self,
        board: Board,
        serving: Callable[[], WorkerLink | None],
        last_words: Callable[[], tuple[str, ...]],
        limits: Limits,
        cause: Callable[[int], str | None] | None,
    ) -> None:
        self._board = board
        self._serving = serving
        self._last_words = last_words
        self._limits = limits
        self._cause = cause
        self._arrivals = count()
        self._room = WaitingRoom()
        self._ledger = Ledger()
        self._outage = Outage(anyio.current_time)
        self.tally = Tally()
        board.listen(self._look)

    def bound(self, limits: Limits) -> None:
        """Other bounds from now on; who waits already keeps its deadline."""
        self._limits = limits

    # -- one request's way -----------------------------------------------------------------------------------

    def ticket(self) -> Ticket:
        """A request has come. Its ticket must be given to `end`."""
        return Ticket(next(self._arrivals), anyio.current_time())

    def must_wait(self, ticket: Ticket) -> Waiting | None:
        """Where the request stands; None once its ticket has a link.

        Raises:
            Unavailable: Waiting is in vain, or too many wait, or too many workers were lost.
            RequestFailed: The request ends workers.
        """
        if ticket.link is not None:
            return None
        self._refuse_convict(ticket)
        ticket.bell = anyio.Event()
        if not ticket.queued:
            self._enter(ticket)
        if not ticket.queued:
            return None
        now = self._board.current
        if not now.expected:
            raise self._unavailable(now.reason or f"the worker is {now.phase}")
        ahead = self._room.ahead(ticket)
        ticket.told = _view(ticket, ahead, now)
        return Waiting(now.phase, ahead)

    async def news(self, ticket: Ticket) -> None:
        """Wait until `must_wait` has something else to say.

        Raises:
            Unavailable: The time is over.
        """
        with anyio.move_on_at(ticket.deadline):
            await ticket.bell.wait()
            return
        limits = self._limits
        if ticket.resumed and ticket.deadline < ticket.entered + limits.wait_timeout:
            raise self._unavailable(
                f"its worker was lost, and there is no other within {limits.resume_timeout:g} s of its arrival"
            )
        raise self._unavailable(f"no worker was ready within {limits.wait_timeout:g} s")

    def advance(self, ticket: Ticket, tokens: int) -> None:
        """Its answer has so many tokens more."""
        case = ticket.case
        case.position += tokens
        if case.watched and self._ledger.advance(case):
            self._look()

    def refused(self, ticket: Ticket, refusal: RequestRefused) -> None:
        """The worker answered with an error: returns if the request is to be tried again.

        Raises:
            RequestFailed: It would be the same again.
        """
        if refusal.code != ErrorCode.GENERATION_FAILED:
            raise RequestFailed(refusal.code, str(refusal), refusal.data) from refusal
        self._ledger.fault(ticket.case, str(refusal))
        self._resume(ticket, after=ticket.after)

    def lost(self, ticket: Ticket, loss: WorkerLost) -> None:
        """Its worker is gone: it is to be tried again."""
        assert ticket.link is not None  # noqa: S101 - only who has a link can lose it
        generation = ticket.link.generation
        if self._cause is None:
            self._ledger.died(generation, str(loss), nobody=True)
        self._resume(ticket, after=generation)

    def end(self, ticket: Ticket) -> None:
        """It is answered, or failed, or its client has left; its place is free at once."""
        if ticket.queued:
            self._room.leave(ticket)
            self._count_waiting(-1)
            self._ledger.end(ticket.case)
        elif not self._ledger.end(ticket.case):
            return  # nobody waited for that
        self._look()

    # -- deciding --------------------------------------------------------------------------------------------

    def _resume(self, ticket: Ticket, after: int) -> None:
        ticket.link = None
        ticket.resumed = True
        ticket.after = after
        self._look()

    def _refuse_convict(self, ticket: Ticket) -> None:
        case = ticket.case
        if case.convicted is not None:
            message = f"this request ended two workers in a row, the second by itself: {case.convicted}"
            raise RequestFailed(ErrorCode.GENERATION_FAILED, message, ErrorData(remedy=POISON_REMEDY))
        if case.losses >= self._limits.attempts:
            lost = f"{case.losses} workers in a row were lost before this request got any further"
            raise self._unavailable(f"{lost}; the last: {case.cause}")

    def _enter(self, ticket: Ticket) -> None:
        """Go at once, if nobody waits; else take a place."""
        link = self._serving()
        if link is not None and len(self._room) == 0 and self._may_go(ticket, link):
            self._give(ticket, link)
            return
        if not ticket.resumed and self._board.current.expected and len(self._room) >= self._limits.max_waiting:
            raise self._unavailable(f"{len(self._room)} requests are already waiting for the worker", full=True)
        ticket.entered = anyio.current_time()
        ticket.deadline = ticket.entered + self._limits.wait_timeout
        if ticket.resumed:
            ticket.deadline = min(ticket.deadline, ticket.arrived + self._limits.resume_timeout)
        self._room.enter(ticket)
        self._count_waiting(+1)
        if ticket.resumed:
            self._look()  # others stand behind it now

    def _look(self) -> None:
        """Judge the dead, let in who may go, and ring for those whose place or prospect is another now."""
        now = self._board.current
        self._outage.look(now)
        self._judge()
        link = self._serving()
        if link is not None:
            for ticket in self._room.go(lambda ticket: self._may_go(ticket, link)):
                self._count_waiting(-1)
                self._give(ticket, link)
                ticket.bell.set()
        for ahead, ticket in enumerate(self._room):
            if _view(ticket, ahead, now) != ticket.told:
                ticket.bell.set()

    def _judge(self) -> None:
        if self._cause is None:
            return
        for generation in self._ledger.generations:
            cause = self._cause(generation)
            if cause is not None:
                self._ledger.died(generation, cause, nobody=is_from_outside(cause))

    def _may_go(self, ticket: Ticket, link: WorkerLink) -> bool:
        case = ticket.case
        is_judged = case.generation == 0 and case.convicted is None and case.losses < self._limits.attempts
        return is_judged and link.generation > ticket.after and not self._ledger.on_probation

    def _give(self, ticket: Ticket, link: WorkerLink) -> None:
        self._ledger.begin(ticket.case, link.generation)
        ticket.link = link
        self.tally.resumed += ticket.resumed

    def _count_waiting(self, change: int) -> None:
        self.tally.waiting += change
        self.tally.running -= change

    def _unavailable(self, reason: str, *, full: bool = False) -> Unavailable:
        retry_after = self._outage.retry_after(self._board.current)
        return Unavailable(reason, retry_after=retry_after, last_words=self._last_words(), full=full)


def _view(ticket: Ticket, ahead: int, now: Readiness) -> object:
    """Everything that `must_wait` would say something else for."""
    return (now.phase, ahead, now.expected, ticket.case.convicted, ticket.case.losses)
