"""When a refused client should ask again: from the machine's own deadline, and from how long starts take here."""

from __future__ import annotations

from collections.abc import Callable

from ..ipc.control_messages import Readiness

UNKNOWN_START = 10.0
"""Seconds that a start is taken to last before one was seen."""

NO_HURRY = 30.0
"""Seconds after which to ask again where only a person can help: nothing will change by itself."""

SOON = 1.0
"""Seconds: the least that is said, and what is said while a worker serves."""

STARTING = frozenset({"starting", "loading", "warming"})


class Outage:
    """Watches the snapshots.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began: float | None = None
        self._generation = -1
        self._lasts = UNKNOWN_START

    def look(self, now: Readiness) -> None:
        """Learn from a snapshot how long starts take."""
        if now.phase in STARTING and now.generation != self._generation:
            self._generation, self._began = now.generation, self._clock()
        elif now.ready and self._began is not None and now.generation == self._generation:
            self._lasts, self._began = self._clock() - self._began, None

    def retry_after(self, now: Readiness) -> float:
        """Seconds after which a client may find a worker."""
        if not now.expected:
            return NO_HURRY
        if now.ready:
            return SOON
        if now.retry_after is not None:  # a pause before the next start
            return max(SOON, now.retry_after + self._lasts)
        passed = 0.0 if self._began is None else self._clock() - self._began
        return max(SOON, self._lasts - passed)
