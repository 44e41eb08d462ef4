"""Which request is to blame for a worker's death. Pure: no await, no clock.

When a worker crashes, every request that ran on it may have been the one. Each is tried again, but one at a time:
on *probation* a suspect has no unproven company until it has got `PROOF` tokens further, or is answered. If the
worker dies meanwhile, the request on probation has now been there in both deaths, so it is *convicted*: it alone
fails, and whatever else ran is acquitted. Deaths that came from outside (a signal that somebody sent) suspect
nobody; but where the system doesn't tell whether it killed for want of memory, that looks the same, so such losses
are counted, as long as a request doesn't get any further between them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..ipc.control_messages import Departure

PROOF = 8
"""Tokens beyond its last loss that acquit a request. More than one, because the last ones that a worker computed
before it died may not have arrived."""

_FROM_OUTSIDE = re.compile(
    r"(killed by SIG(KILL|TERM|INT|HUP|QUIT)\b(?!.*: the system was out of memory)|ended by |exited with code 0\b)"
)


def is_from_outside(cause: str) -> bool:
    """Whether a worker's end, in the words of `causes.describe_exit`, can't be a request's doing."""
    return _FROM_OUTSIDE.match(cause) is not None


def cause_of(generation: int, departures: Sequence[Departure]) -> str | None:
    """Why a generation ended; None while it has not. The latest departures are enough: each is looked for at once."""
    for departure in reversed(departures):
        if departure.generation == generation:
            return f"ended by us: {departure.cause}" if departure.expected else departure.cause
    return None


@dataclass(eq=False, slots=True)
class Case:
    """What is known of one request.

    Attributes:
        generation: The worker that has it; 0 for none. After that one's death, until the death is judged, still it.
        sent: The worker may have seen it.
        position: Tokens of its answer.
        start: Its position when it was given to the present worker.
        losses: Workers lost in a row without getting further, for causes that are nobody's fault.
        cause: Of the last loss.
        suspect: A worker crashed under it, and it has not got further since.
        convicted: Two did, the second while it was on probation; the cause of the second.
    """

    generation: int = 0
    sent: bool = False
    position: int = 0
    start: int = 0
    losses: int = 0
    cause: str = ""
    suspect: bool = False
    convicted: str | None = None

    @property
    def advanced(self) -> bool:
        """It got further than where the last worker was lost."""
        return self.position - self.start >= PROOF

    @property
    def watched(self) -> bool:
        """Whether its progress means anything now."""
        return self.suspect or self.losses > 0


class Ledger:
    """The cases of all requests that a worker has or had."""

    def __init__(self) -> None:
        self._running: set[Case] = set()
        self._probation: Case | None = None

    @property
    def on_probation(self) -> bool:
        """Someone is: nobody else may begin."""
        return self._probation is not None

    @property
    def generations(self) -> set[int]:
        """Workers that have requests, or had when they died."""
        return {case.generation for case in self._running}

    def begin(self, case: Case, generation: int) -> None:
        """A worker gets the request. Not while someone is `on_probation`."""
        case.generation, case.start, case.sent = generation, case.position, False
        self._running.add(case)
        if case.suspect:
            self._probation = case

    def advance(self, case: Case) -> bool:
        """Its position moved; whether it is acquitted now, so that others may begin."""
        if not case.advanced:
            return False
        case.suspect, case.losses = False, 0
        return self._release(case)

    def end(self, case: Case) -> bool:
        """The request is answered or given up; whether others may begin now."""
        self._running.discard(case)
        case.generation = 0
        return self._release(case)

    def fault(self, case: Case, cause: str) -> None:
        """The engine failed under the request, without dying."""
        self._lost(case)
        self._blame(case, self._probation, cause)

    def died(self, generation: int, cause: str, *, nobody: bool) -> None:
        """A worker is gone: judge all that it had. `nobody` of them is to blame."""
        there = [case for case in self._running if case.generation == generation]
        accused = self._probation if self._probation in there else None
        for case in there:
            sent = case.sent
            self._lost(case)
            case.cause = cause
            if nobody:
                case.losses += sent
            elif sent:
                self._blame(case, accused, cause)
        if accused is not None:
            self._release(accused)

    def _blame(self, case: Case, accused: Case | None, cause: str) -> None:
        if case is accused:
            case.convicted = cause
            self._release(case)
        elif accused is None:
            case.suspect = True

    def _lost(self, case: Case) -> None:
        self._running.discard(case)
        case.generation = 0

    def _release(self, case: Case) -> bool:
        if self._probation is not case:
            return False
        self._probation = None
        return True
