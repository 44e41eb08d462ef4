"""How the daemon came to where it is: the phases it went through, and the causes of what ended.

It hears every snapshot as it is published, and keeps a bounded number of spans. Counters begin at zero with the
daemon: what an earlier one saw end is shown by `status`, and counted by nobody.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Sequence

import msgspec

from ..ipc.control_messages import Departure, Phase, Readiness, WarmupStatus
from .readiness import Board

SPANS_KEPT = 48

STEPS: tuple[Phase, ...] = ("starting", "loading", "warming")
"""What leads to ready, in this order."""

CAUSES: tuple[tuple[str, str], ...] = (
    ("memory", r"out of memory|over the ceiling"),
    ("silent", r"silent|no hello|no progress"),
    ("poisoned", r"poisoned"),
    ("killed", r"killed by"),
    ("crashed", r"crashed|SIG[A-Z]+"),
    ("protocol", r"protocol|connection"),
    ("spawn", r"spawn"),
    ("exited", r"exited"),
)
"""Classes of causes and what their sentences contain; the first that fits counts. Few, for each is a time series."""

CLASSES = ("requested", *(name for name, _ in CAUSES), "other")


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A phase, from `since` (Unix time) on, until the next span begins. `cause` is why it came."""

    phase: Phase
    generation: int
    since: float
    warm: bool = False
    cause: str | None = None


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A generation that became ready: seconds of each step, in the order of `STEPS`; 0 for one that was left out."""

    generation: int
    steps: dict[str, float]


def cause_class(departure: Departure) -> str:
    """One of `CLASSES`."""
    fitting = next((name for name, pattern in CAUSES if re.search(pattern, departure.cause)), "other")
    # A worker over its memory ceiling is told to end too, but nobody asked for that.
    return "requested" if departure.expected and fitting != "memory" else fitting


class Timeline:
    """Follows the board.

    Args:
        board: Where snapshots are published.
        departures: Generations that ended, the oldest first; the newest only.

    Attributes:
        restarts: Departures since the daemon's start, by class.
        warmups: Generations' warmups that ended, by outcome.
        prefixes: Prefixes that those warmups had, by source.
        last_start: Of the newest generation that became ready.
    """

    def __init__(self, board: Board, departures: Callable[[], Sequence[Departure]] = tuple) -> None:
        self._board = board
        self._departures = departures
        self._seen = frozenset(departures())
        self._spans: deque[Span] = deque(maxlen=SPANS_KEPT)
        self._entered: dict[int, dict[Phase, float]] = {}
        self._warmed = 0
        self.restarts: Counter[str] = Counter()
        self.warmups: Counter[str] = Counter()
        self.prefixes: Counter[str] = Counter()
        self.last_start: Start | None = None
        self._look()
        board.listen(self._look)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The newest phases, the oldest of them first."""
        return tuple(self._spans)

    def _look(self) -> None:
        now = self._board.current
        cause = self._count_departures()
        self._note_steps(now)
        if self._is_new(now):
            if now.phase == "ready":
                self._arrive(now)
            self._add(now, cause)
        elif now.warm != self._spans[-1].warm:  # a rewarm changes neither phase nor generation
            self._spans[-1] = msgspec.structs.replace(self._spans[-1], warm=now.warm)

    def _is_new(self, now: Readiness) -> bool:
        last = self._spans[-1] if self._spans else None
        return last is None or (last.phase, last.generation, last.since) != (now.phase, now.generation, now.since)

    def _add(self, now: Readiness, departed: str | None) -> None:
        reason = now.reason if now.phase != "ready" or not now.warm else None
        self._spans.append(
            Span(phase=now.phase, generation=now.generation, since=now.since, warm=now.warm, cause=reason or departed)
        )

    def _count_departures(self) -> str | None:
        """Count those that are new; the cause of the last of them."""
        departures = self._departures()
        fresh = [departure for departure in departures if departure not in self._seen]
        self._seen = frozenset(departures)
        self.restarts.update(map(cause_class, fresh))
        return fresh[-1].cause if fresh else None

    def _note_steps(self, now: Readiness) -> None:
        self._enter(now.generation, now.phase, now.since)
        heir = now.successor
        if heir is not None:
            self._enter(heir.generation, heir.phase, heir.since)
        alive = {now.generation, heir.generation if heir else now.generation}
        for gone in self._entered.keys() - alive:
            del self._entered[gone]

    def _enter(self, generation: int, phase: Phase, since: float) -> None:
        self._entered.setdefault(generation, {}).setdefault(phase, since)

    def _arrive(self, now: Readiness) -> None:
        entered = self._entered[now.generation]
        self.last_start = Start(generation=now.generation, steps=_steps(entered))
        if now.generation > self._warmed:  # ready comes again after a link was lost and found fit
            self._warmed = now.generation
            self._count_warmup(now.warmup)

    def _count_warmup(self, warmup: WarmupStatus) -> None:
        if warmup.outcome is not None:
            self.warmups[warmup.outcome] += 1
        self.prefixes.update(prefix.source for prefix in warmup.prefixes)


def _steps(entered: dict[Phase, float]) -> dict[str, float]:
    """How long each step took: until the next one that was entered."""
    ends = [*STEPS, "ready"]
    took: dict[str, float] = {}
    for place, step in enumerate(STEPS):
        after = [entered[later] for later in ends[place + 1 :] if later in entered]
        took[step] = round(max(0.0, after[0] - entered[step]), 3) if step in entered and after else 0.0
    return took
