"""When to ask again."""

from __future__ import annotations

import msgspec
import pytest

from stoker.daemon.outage import NO_HURRY, SOON, UNKNOWN_START, Outage
from stoker.ipc.control_messages import Readiness
from tests.fakes.fake_dispatch import READY


def snapshot(phase: str, generation: int = 1, **more: object) -> Readiness:
    return msgspec.structs.replace(READY, phase=phase, ready=phase == "ready", generation=generation, **more)


class Watched:
    """An outage estimate with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.outage = Outage(lambda: self.now)

    def see(self, at: float, phase: str, generation: int = 1) -> Readiness:
        self.now = at
        seen = snapshot(phase, generation)
        self.outage.look(seen)
        return seen


@pytest.fixture
def watched() -> Watched:
    """Nothing was seen yet."""
    return Watched()


def test_first_start_is_estimated(watched: Watched) -> None:
    """Before any start was seen it is taken to last for a fixed time, and what has passed of it is taken off."""
    watched.see(100, "starting")
    loading = watched.see(104, "loading")

    assert watched.outage.retry_after(loading) == UNKNOWN_START - 4


def test_later_starts_last_as_long_as_the_last(watched: Watched) -> None:
    """A start is taken to last as long as the last one did, from the spawn to ready."""
    for at, phase in ((0, "starting"), (1, "loading"), (5, "warming"), (40, "ready")):
        watched.see(at, phase)
    watched.see(100, "starting", 2)
    warming = watched.see(130, "warming", 2)

    assert watched.outage.retry_after(warming) == 10
    watched.now = 200
    assert watched.outage.retry_after(warming) == SOON


def test_pause_before_a_start(watched: Watched) -> None:
    """In backoff the machine's own deadline comes first, then the start itself."""
    watched.see(0, "starting")
    watched.see(3, "ready")

    assert watched.outage.retry_after(snapshot("backoff", retry_after=12.5)) == 15.5


def test_ready_is_soon(watched: Watched) -> None:
    """While a worker serves, a place may be free at any moment."""
    assert watched.outage.retry_after(snapshot("ready")) == SOON


@pytest.mark.parametrize("phase", ["failed", "down"])
def test_no_hurry_where_only_a_person_helps(watched: Watched, phase: str) -> None:
    """Nothing changes by itself, so clients need not hammer."""
    assert watched.outage.retry_after(snapshot(phase, expected=False)) == NO_HURRY
