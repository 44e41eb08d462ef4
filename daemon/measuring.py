"""How fast the machine computes for the worker that serves: asked only while nothing else would be delayed by it."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from ..ipc.control_messages import Measurement
from ..ipc.errors import ErrorCode
from ..ipc.messages import Measure, Speed
from .asking import ask_ready
from .link import WorkerLink
from .steward import Refusal, Snapshots

LATER = "try again later; `stoker status` shows what runs"


class Gauge:
    """Has whichever worker is ready measure.

    Args:
        board: Says what is instead, where no worker is ready, and whether another one is on its way.
        serving: The link of the ready worker, if there is one.
    """

    def __init__(self, board: Snapshots, serving: Callable[[], WorkerLink | None]) -> None:
        self._board = board
        self._serving = serving
        self._measuring = False

    async def measure(self) -> Measurement:
        """Once at a time, so that a request that comes meanwhile waits for one measurement at most.

        Raises:
            Refusal: `NOT_READY` without a ready worker; `BUSY` while it has anything to do, or a successor is coming.
        """
        if self._measuring:
            raise Refusal("another measurement is under way", LATER, ErrorCode.BUSY)
        if (coming := self._board.current.successor) is not None:
            # It loads and warms on the same machine, and what is measured beside that is neither's speed.
            raise Refusal(f"generation {coming.generation} is being prepared", LATER, ErrorCode.BUSY)
        self._measuring = True
        try:
            # A client that leaves calls nothing off; the answer has its deadline.
            with anyio.CancelScope(shield=True):
                speed = await ask_ready(self._board, self._serving, Measure(), Speed)
            return Measurement.of(speed)
        finally:
            self._measuring = False
