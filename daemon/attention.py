"""Whether the daemon was there to see: deadlines don't count for a time in which nobody looked.

Three things make every deadline look passed although no worker is at fault: the machine slept, the daemon itself
was stopped (SIGSTOP, a debugger), or it got no processor. After each, no deadline fires in a grace time, in which
what has arrived is read and the workers, which were away too, go on.

Sleep is seen by comparing a clock that stops in it with one that doesn't; the rest by looking at regular times, and
noticing that one came late.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import anyio
import anyio.lowlevel

LOOK_EVERY = 5.0
"""Seconds between two looks."""

LATE = 1.0
"""Seconds by which a look may be late, or a sleep long, without meaning anything."""

GRACE = 10.0
"""Seconds after a lapse in which no deadline fires: a machine that wakes up, or was starved, has much to catch up
on."""

ROUNDS = 16
"""Turns of the event loop from a socket that can be read to the event that it means, twice over."""


def seconds_slept() -> float:
    """Seconds that the machine has slept, from an unknown beginning: only differences mean something.

    Linux's monotonic clock stops in sleep and CLOCK_BOOTTIME doesn't. On macOS CLOCK_UPTIME_RAW stops (it is what
    `time.monotonic` reads), and CLOCK_MONOTONIC doesn't.
    """
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC) - time.clock_gettime(time.CLOCK_UPTIME_RAW)
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


async def settle() -> None:
    """Let what has arrived be read and dealt with, without letting time pass."""
    for _ in range(ROUNDS):
        await anyio.lowlevel.checkpoint()


class Attention:
    """Notices when the daemon was not there. Pure but for its two clocks.

    Args:
        grace: Seconds after a lapse in which no deadline fires.
        clock: Monotonic seconds, the event loop's by default.
        slept: Seconds that the machine has slept, from any beginning.

    Attributes:
        not_before: No deadline fires before this time of the clock.
        lapses: How often the daemon was away, since its start.
    """

    def __init__(
        self,
        grace: float = GRACE,
        clock: Callable[[], float] = anyio.current_time,
        slept: Callable[[], float] = seconds_slept,
    ) -> None:
        self.grace = grace
        self._clock = clock
        self._slept = slept
        self.not_before = float("-inf")
        self.lapses = 0
        self._expected: float | None = None
        """When `keep` looks again."""
        self._slept_before: float | None = None

    def look(self, due: float | None = None) -> float:
        """Look around; `due` is when this look should have come. Returns the time."""
        now, slept = self._clock(), self._slept()
        if self._was_away(now, slept, due):
            self.not_before = now + self.grace
            self.lapses += 1
            self._expected = None
        self._slept_before = slept
        return now

    def postponed(self, deadline: float) -> float:
        """When a deadline may fire."""
        return max(deadline, self.not_before)

    async def keep(self) -> None:
        """Look at regular times, until cancelled."""
        while True:
            self._expected = self.look() + LOOK_EVERY
            await anyio.sleep(LOOK_EVERY)

    def _was_away(self, now: float, slept: float, due: float | None) -> bool:
        late = any(planned is not None and now > planned + LATE for planned in (self._expected, due))
        return late or (self._slept_before is not None and slept > self._slept_before + LATE)
