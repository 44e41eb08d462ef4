"""When deadlines don't count: with clocks that the test turns, and with the real ones once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from stoker.daemon.attention import GRACE, LATE, LOOK_EVERY, Attention, seconds_slept

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


@dataclass
class Clocks:
    """A machine's: the one that stops in sleep, and how long it slept."""

    now: float = 1000.0
    slept: float = 77.0

    def attention(self) -> Attention:
        return Attention(GRACE, lambda: self.now, lambda: self.slept)


def test_looking_in_time_postpones_nothing() -> None:
    """Looks that come when they should leave every deadline where it is."""
    clocks = Clocks()
    attention = clocks.attention()
    for _ in range(100):
        clocks.now += LOOK_EVERY
        attention.look(due=clocks.now - LATE / 2)

    assert (attention.lapses, attention.postponed(5.0)) == (0, 5.0)


def test_sleep_postpones_deadlines() -> None:
    """After the machine slept, whatever its monotonic clock says, no deadline fires before the grace is over."""
    clocks = Clocks()
    attention = clocks.attention()
    attention.look()
    clocks.now, clocks.slept = 1000.1, clocks.slept + 3600

    assert attention.look() == 1000.1
    assert attention.postponed(1000.05) == 1000.1 + GRACE
    assert attention.postponed(2000.0) == 2000.0


def test_late_timer_postpones_deadlines() -> None:
    """A daemon that was stopped sees its timer late by the time of the stop, and judges nobody by that time."""
    clocks = Clocks()
    attention = clocks.attention()
    clocks.now = 1060.0

    attention.look(due=1005.0)

    assert (attention.lapses, attention.postponed(1005.0)) == (1, 1060.0 + GRACE)


def test_lapse_is_seen_once() -> None:
    """One sleep is one lapse; the looks after it don't prolong the grace."""
    clocks = Clocks()
    attention = clocks.attention()
    attention.look()
    clocks.slept += 3600
    attention.look()
    clocks.now += 1
    attention.look(due=clocks.now)

    assert (attention.lapses, attention.not_before) == (1, 1000.0 + GRACE)


async def test_keeping_notices_a_stop_between_two_deadlines() -> None:
    """Regular looks notice a stop that no deadline was late by: one that began and ended within a wait."""
    stopped = 0.0
    attention = Attention(clock=lambda: anyio.current_time() + stopped, slept=lambda: 0.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(attention.keep)
        await anyio.sleep(1000.5)
        assert attention.lapses == 0

        stopped = 30.0
        attention.look()
        tasks.cancel_scope.cancel()

    assert attention.lapses == 1


def test_sleep_is_measured_in_seconds() -> None:
    """The two real clocks agree while the machine is awake."""
    before = seconds_slept()
    time.sleep(0)

    assert abs(seconds_slept() - before) < LATE
