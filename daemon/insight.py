"""What the daemon observes of itself, in one hand: for metrics and the status page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..ipc.control_messages import Departure
from .journal import Journal
from .metrics import Metrics
from .readiness import Board
from .records import Records
from .timeline import Timeline


@dataclass(frozen=True, slots=True)
class Insight:
    """Nothing of it waits for anything, and all of it is bounded."""

    records: Records
    timeline: Timeline
    journal: Journal
    metrics: Metrics

    @classmethod
    def over(cls, board: Board, records: Records, departures: Callable[[], Sequence[Departure]] = tuple) -> Insight:
        """Of a daemon that publishes on this board; from now on."""
        timeline = Timeline(board, departures)
        return cls(records, timeline, Journal(), Metrics(records, timeline))
