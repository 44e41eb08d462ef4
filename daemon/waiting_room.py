"""Who waits for a worker, in which order, and who may go. Nothing here waits; a ticket's bell is for who does.

First come, first served; requests that a worker was lost under go before those that no worker has had.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import anyio

from .link import WorkerLink
from .suspects import Case


@dataclass(eq=False, slots=True)
class Ticket:
    """One request on its way to a worker.

    Attributes:
        arrival: Its number; the lower, the earlier it came.
        arrived: When, in monotonic seconds.
        case: What is known of it.
        resumed: A worker was lost under it.
        after: It can't go to this generation or an earlier one.
        link: The worker that it may go to; None while it has none.
        queued: It is in the line.
        entered, deadline: When this wait began, and when it is over.
        told: What its client knows of its place.
        bell: Rung when there is more to know.
    """

    arrival: int
    arrived: float
    case: Case = field(default_factory=Case)
    resumed: bool = False
    after: int = 0
    link: WorkerLink | None = None
    queued: bool = False
    entered: float = 0.0
    deadline: float = 0.0
    told: object = None
    bell: anyio.Event = field(default_factory=anyio.Event)

    @property
    def rank(self) -> tuple[bool, int]:
        """What orders the line."""
        return (not self.resumed, self.arrival)


class WaitingRoom:
    """The line. It has no bound of its own: whoever lets in new requests looks at its length."""

    def __init__(self) -> None:
        self._line: list[Ticket] = []

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._line)

    def enter(self, ticket: Ticket) -> int:
        """Take a place; how many are ahead."""
        insort(self._line, ticket, key=lambda other: other.rank)
        ticket.queued = True
        return self.ahead(ticket)

    def leave(self, ticket: Ticket) -> None:
        """Give the place up."""
        self._line.remove(ticket)
        ticket.queued = False

    def ahead(self, ticket: Ticket) -> int:
        """How many go before it."""
        return self._line.index(ticket)

    def go(self, may: Callable[[Ticket], bool]) -> Iterator[Ticket]:
        """Those at the head that may go, one by one: `may` is asked again after each. They have left the line."""
        while self._line and may(self._line[0]):
            ticket = self._line.pop(0)
            ticket.queued = False
            yield ticket
