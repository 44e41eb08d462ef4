"""What systemd hears of the daemon, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import anyio
import pytest

from stoker.daemon.cli.systemd import EXTENSION, Telling
from stoker.daemon.readiness import Board
from stoker.ipc.control_messages import Readiness, ReloadStatus
from stoker.launchd.notify import Notifier
from tests.fakes.fake_steward import FAILED, LOADING, READY, changed

pytestmark = pytest.mark.anyio

APPLIED = ReloadStatus(at=1.0, outcome="applied", message="at once: aliases")
REFUSED = ReloadStatus(at=1.0, outcome="refused", message="port = 'x' can't be used")


class Heard(Notifier):
    """A manager that remembers what it was told, and when."""

    def __init__(self, watchdog: float | None = None) -> None:
        super().__init__("/nowhere", watchdog)
        self.words: list[tuple[float, str]] = []
        self.busy = False

    def tell(self, *words: str) -> bool:
        """See `Notifier`."""
        self.words += [(anyio.current_time(), word) for word in words if not self.busy]
        return not self.busy

    def times(self, word: str) -> list[float]:
        """When it was said, in seconds from the first word on."""
        return [round(at - self.words[0][0], 3) for at, said in self.words if said.startswith(word)]


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Nobody waits for minutes here."""
    return virtual_time


@pytest.fixture
def heard() -> Heard:
    """One with a watchdog of 30 s."""
    return Heard(30.0)


async def test_ready_is_said_once_and_not_before(heard: Heard) -> None:
    """READY=1 comes with the first ready; a restart of the worker takes nothing back and says it no second time."""
    board = Board(LOADING)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Telling(heard), board)
        await anyio.sleep(50)
        board.publish(READY)
        await anyio.sleep(50)
        board.publish(changed(READY, phase="backoff", ready=False))
        await anyio.sleep(50)
        board.publish(changed(READY, generation=9))
        await anyio.sleep(50)
        tasks.cancel_scope.cancel()

    assert heard.times("READY=1") == [50]


async def test_start_has_time_as_long_as_it_takes(heard: Heard) -> None:
    """Until ready, and in `failed`, the limit of the start is moved on before it is reached."""
    board = Board(LOADING)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Telling(heard), board)
        await anyio.sleep(500)
        board.publish(FAILED)
        await anyio.sleep(500)
        tasks.cancel_scope.cancel()
    times = heard.times(f"EXTEND_TIMEOUT_USEC={int(EXTENSION * 1e6)}")

    assert max(later - earlier for earlier, later in pairwise(times)) <= EXTENSION / 2
    assert times[-1] > 950
    assert heard.times("READY=1") == []


async def test_watchdog_gets_two_signs_in_its_time(heard: Heard) -> None:
    """Once ready, a sign of life comes twice as often as it is wanted."""
    board = Board(READY)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Telling(heard), board)
        await anyio.sleep(300)
        tasks.cancel_scope.cancel()
    times = heard.times("WATCHDOG=1")

    assert len(times) >= 19
    assert max(later - earlier for earlier, later in pairwise(times)) <= 15


async def test_stopping_is_said_when_it_is_for_good(heard: Heard) -> None:
    """The worker's stop on the way to a restart is not the service's."""
    board = Board(READY)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Telling(heard), board)
        await anyio.sleep(1)
        board.publish(changed(READY, phase="stopping", ready=False, expected=True))
        await anyio.sleep(1)
        assert heard.times("STOPPING=1") == []
        board.publish(changed(READY, phase="stopping", ready=False, expected=False))
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()

    assert heard.times("STOPPING=1") == [2]


async def test_status_is_a_line(heard: Heard) -> None:
    """The status that `systemctl status` shows is the one of `stoker ready`."""
    board = Board(FAILED)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Telling(heard), board)
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()

    assert [word for _, word in heard.words if word.startswith("STATUS=failed: ")]


async def test_ready_is_not_lost(heard: Heard) -> None:
    """A manager that is too busy to read READY=1 gets it with the next sign of life."""
    board = Board(LOADING)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Telling(heard), board)
        await anyio.sleep(1)
        heard.busy = True
        board.publish(READY)
        await anyio.sleep(1)
        heard.busy = False
        await anyio.sleep(60)
        tasks.cancel_scope.cancel()

    assert len(heard.times("READY=1")) == 1


@asynccontextmanager
async def told(heard: Heard, first: Readiness) -> AsyncIterator[tuple[Telling, Board]]:
    """A manager that has heard of the first snapshot, and only of what follows remembers."""
    board, telling = Board(first), Telling(heard)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(telling, board)
        await anyio.sleep(1)
        heard.words.clear()
        yield telling, board
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("became", [APPLIED, REFUSED], ids=lambda status: status.outcome)
async def test_reload_begins_and_ends(heard: Heard, became: ReloadStatus) -> None:
    """A reload is told with its time, and is over when it was applied, or refused; the status says which."""
    async with told(heard, READY) as (telling, _):
        telling.reloading(None)
        telling.reloading(became)
    reloading, time, ready, status = [word for _, word in heard.words]

    assert (reloading, ready) == ("RELOADING=1", "READY=1")
    assert time.startswith("MONOTONIC_USEC=")
    assert status.startswith("STATUS=ready (generation 1), warm")
    assert status.endswith(f"; reload {became.outcome}: {became.message}")


async def test_reload_before_ready_ends_no_start(heard: Heard) -> None:
    """READY=1 is said for the first ready alone, though reloads began, or ended, before it."""
    async with told(heard, LOADING) as (telling, board):
        telling.reloading(None)
        telling.reloading(APPLIED)
        telling.reloading(None)
        await anyio.sleep(9)
        board.publish(READY)
        await anyio.sleep(1)
        telling.reloading(REFUSED)

    assert heard.times("RELOADING=1") == []
    assert [round(at) for at in heard.times("READY=1")] == [round(heard.times("STATUS=ready")[0])]


async def test_burst_of_reloads_ends_as_ready(heard: Heard) -> None:
    """However many reloads follow one another, each that was told to begin is told to end, before the next."""
    async with told(heard, READY) as (telling, _):
        for became in (APPLIED, REFUSED) * 10:
            telling.reloading(None)
            telling.reloading(became)
    words = [word for _, word in heard.words if word in {"RELOADING=1", "READY=1"}]

    assert words == ["RELOADING=1", "READY=1"] * 20


async def test_end_of_a_reload_is_not_lost(heard: Heard) -> None:
    """A manager that is too busy to hear a reload's end hears it later, once; if it heard no beginning, nothing."""
    async with told(heard, READY) as (telling, _):
        telling.reloading(None)
        heard.busy = True
        telling.reloading(REFUSED)
        telling.reloading(None)
        telling.reloading(APPLIED)
        heard.busy = False
        await anyio.sleep(60)

    assert len(heard.times("RELOADING=1")) == len(heard.times("READY=1")) == 1


async def test_stopping_is_final(heard: Heard) -> None:
    """A reload that runs into the stop takes nothing of it back."""
    async with told(heard, READY) as (telling, board):
        telling.reloading(None)
        board.publish(changed(READY, phase="stopping", ready=False, expected=False))
        await anyio.sleep(1)
        telling.reloading(APPLIED)
        telling.reloading(None)
        telling.reloading(APPLIED)

    assert [word for _, word in heard.words if word in {"RELOADING=1", "READY=1"}] == ["RELOADING=1"]


async def test_without_a_manager() -> None:
    """Where nobody listens, nothing is done at all."""
    with anyio.fail_after(5):
        telling = Telling(Notifier(None))
        await telling(Board(READY))
        telling.reloading(None)
        telling.reloading(APPLIED)
