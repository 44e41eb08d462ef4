"""Warmups that nobody waits for: what an abandoned one left, and prefixes that a new day has changed.

They are computed while there is nothing else to do, one job at a time. The figures tell of it, and a message when
a job is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...ipc.framing import Frame, Notification
from ...ipc.messages import PrefixReport, WarmedLater
from ..engine import Emit
from .planning import Plan
from .renewal import Renewal
from .warming import WarmJob

NAME = "background"
"""Id of a job that answers no request."""


class Background:
    """What is left to warm.

    Args:
        begin: Makes a job of plans, which reports to the given place.
        renewal: Tells what a new day has changed.
        emit: Where the end of a job is told.
    """

    def __init__(self, begin: Callable[[Sequence[Plan], Emit], WarmJob], renewal: Renewal, emit: Emit) -> None:
        self._begin = begin
        self._emit = emit
        self._renewal = renewal
        self._waiting: dict[str, Plan] = {}
        self._job: WarmJob | None = None
        self._reports: dict[str, PrefixReport] = {}

    @property
    def active(self) -> bool:
        """Whether there is something to compute."""
        return bool(self._job or self._waiting)

    @property
    def current(self) -> str | None:
        """Name of the prefix under way, or next."""
        return self._job.current if self._job else next(iter(self._waiting), None)

    @property
    def due(self) -> float | None:
        """Seconds until `look` is to be called; None: never."""
        return self._renewal.due

    @property
    def reports(self) -> tuple[PrefixReport, ...]:
        """Of what was warmed here since a request warmed the same names."""
        return tuple(self._reports.values())

    def look(self) -> None:
        """See whether a new day has changed anything."""
        self.add(self._renewal.stale())

    def add(self, plans: Sequence[Plan]) -> None:
        """Have these warmed too."""
        self._waiting |= {plan.name: plan for plan in plans}

    def yield_to(self, plans: Sequence[Plan]) -> None:
        """A request warms these now: keep what is computed, and do only the rest of the work afterwards."""
        if self._job is not None:
            self._job.cancel()
            self._job.step(0.0)
            self.add(self._job.left())
            self._tell([report for report in self._job.reports if report.tokens_warm == report.tokens])
            self._job = None
        for plan in plans:
            self._waiting.pop(plan.name, None)
            self._reports.pop(plan.name, None)
        self._renewal.remember(plans)

    def step(self, chunk_seconds: float) -> None:
        """Compute one chunk at most."""
        if self._job is None:
            plans, self._waiting = tuple(self._waiting.values()), {}
            if not plans:
                return
            self._job = self._begin(plans, _silent)
        if self._job.step(chunk_seconds):
            self._tell(self._job.reports)
            self._job = None

    def _tell(self, done: Sequence[PrefixReport]) -> None:
        if done:
            self._reports |= {report.name: report for report in done}
            self._emit(Notification(WarmedLater(prefixes=tuple(done))))


def _silent(_: Frame) -> None:
    """Nobody asked for it."""
