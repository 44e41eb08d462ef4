"""The worker in figures, as `status` needs them: its own, and what the system says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from ..ipc.control_messages import Rates, WorkerStatus
from ..ipc.messages import Figures, Statistics
from .life import Life
from .link import RequestRefused, WorkerLink, WorkerLost
from .memory import footprint

STATISTICS_TIMEOUT = 0.25
"""Seconds that `status` waits for the worker's figures before it gives the last known ones; the worker answers
between two decoding steps or prefill chunks."""


class WorkerFigures:
    """Asks whichever worker serves.

    Args:
        serving: Its link, if there is one.
    """

    def __init__(self, serving: Callable[[], WorkerLink | None]) -> None:
        self._serving = serving
        self._known: Figures | None = None
        self._of = 0  # the generation

    async def latest(self) -> Figures | None:
        """Figures of now, or the last ones of the same worker, within `STATISTICS_TIMEOUT`."""
        link = self._serving()
        if link is None:
            return self._known
        if link.generation != self._of:
            self._known, self._of = None, link.generation
        with anyio.move_on_after(STATISTICS_TIMEOUT):
            try:
                self._known = await link.call(Statistics(), Figures)
            except (WorkerLost, RequestRefused):
                self._known = None  # a status without figures is still a status
        return self._known


def told(figures: Figures | None) -> dict[str, Any]:
    """The fields of a status that are the worker's own words."""
    if figures is None:
        return {"cache": None, "rates": Rates()}
    rates = Rates(prompt_tps=figures.prompt_tps, generation_tps=figures.generation_tps)
    return {"cache": figures.cache, "store": figures.store, "background": figures.background, "rates": rates}


def worker_status(life: Life) -> WorkerStatus | None:
    """The living process; None before it is spawned, and in the instant of its death."""
    memory = footprint(life.pid) if life.pid else None
    if life.pid is None or memory is None:
        return None
    return WorkerStatus(pid=life.pid, uptime=round(anyio.current_time() - life.started_at, 1), memory_bytes=memory)
