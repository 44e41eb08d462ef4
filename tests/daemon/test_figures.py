"""The worker in figures: fresh, last known, or none."""

from __future__ import annotations

import os
from typing import Any

import anyio
import pytest

from stoker.daemon.figures import STATISTICS_TIMEOUT, WorkerFigures, worker_status
from stoker.ipc.messages import CacheFigures, Figures
from tests.fakes.fake_life import FakeLife
from tests.fakes.fake_peer import linked

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


def figures(memory: int) -> Figures:
    cache = CacheFigures(entries=0, pinned=0, bytes=0, limit_bytes=0, hits=0, misses=0, evictions=0)
    return Figures(memory_bytes=memory, cache=cache, running=0)


async def test_busy_worker_gives_its_last_known_figures() -> None:
    """A worker that doesn't answer in time costs no status its time: what it said last is given."""
    async with linked() as (link, peer), anyio.create_task_group() as tasks:
        reader = WorkerFigures(lambda: link)

        async def answer() -> None:
            target, _ = await peer.asked()
            await peer.answer(target, figures(7))

        tasks.start_soon(answer)
        first = await reader.latest()
        began = anyio.current_time()
        second = await reader.latest()

        assert (first, second) == (figures(7), figures(7))
        assert anyio.current_time() - began == pytest.approx(STATISTICS_TIMEOUT)


async def test_lost_worker_has_no_figures() -> None:
    """Figures of a worker that is gone are not told as if they were today's."""
    async with linked() as (link, _):
        reader = WorkerFigures(lambda: link)
        link.lose("the worker closed its connection")

        assert await reader.latest() is None


async def test_process_is_told_while_it_lives() -> None:
    """The living process has a memory and an age; one that is not there has no status."""
    life = FakeLife(1, lambda _: None, lambda _: None, pid=os.getpid())
    status = worker_status(life)

    assert status is not None
    assert status.memory_bytes > 1 << 20
    life.pid = None
    assert worker_status(life) is None
