"""Hung, slow and poisoned workers that are real processes: who is replaced, and who is left alone."""

from __future__ import annotations

import functools
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from tests.fakes.fake_daemon import GENERATE
from tests.fakes.fake_scenario import answer
from tests.fakes.house import WATCHFUL, Open, housing

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_children")]


@pytest.fixture
def opened(short_dir: Path) -> Open:
    """`housing`, with a directory for the sockets already given."""
    return functools.partial(housing, short_dir)


async def test_silent_compute_thread_is_noticed(opened: Open) -> None:
    """A worker whose compute thread hangs while its socket lives is replaced, and its answer goes on."""
    scenario = {"1": {"faults": [{"at": "generate", "do": "hang", "step": 3}]}, "default": {}}
    async with opened(scenario, budgets=replace(WATCHFUL, next_token=0.3)) as house:
        assert await house.asked() == answer(GENERATE, 6)

        [departure] = house.supervisor.departures
        assert departure.cause == "silent: no token for 0.3 s in the middle of an answer"


async def test_idle_hang_is_noticed_by_a_probe(opened: Open) -> None:
    """A worker that hung while nobody asked anything is replaced before anybody does."""
    scenario = {"1": {"faults": [{"at": "warmed", "do": "hang"}]}, "default": {}}
    budgets = replace(WATCHFUL, first_token=0.5, probe_interval=0.1)
    async with opened(scenario, budgets=budgets) as house:
        await house.ready(generation=2)

        [departure] = house.supervisor.departures
        assert departure.cause == "silent: no token and no progress for 0.5 s when it was probed"


async def test_slow_prefill_with_progress_is_not_killed(opened: Open) -> None:
    """A prefill of ten times the budget that reports its chunks is answered by the worker that began it."""
    scenario = {"generate": {"prefill": {"seconds": 5.0, "steps": 100}}}
    async with opened(scenario, budgets=replace(WATCHFUL, first_token=0.5)) as house:
        assert await house.asked() == answer(GENERATE, 6)

        assert (house.board.current.generation, house.supervisor.departures) == (1, ())


async def test_stop_of_both_is_no_silence(opened: Open) -> None:
    """If daemon and worker are stopped together and go on together, as by a sleep, the worker is not blamed."""
    scenario = {"generate": {"tokens_per_second": 5}}
    async with opened(scenario, budgets=replace(WATCHFUL, next_token=1.0)) as house:
        async with anyio.create_task_group() as tasks:
            await house.ready()
            tasks.start_soon(house.asked)
            await anyio.sleep(0.3)  # some tokens have come, and some are still to come
            life = house.supervisor.life
            assert life is not None
            assert life.pid is not None
            os.kill(life.pid, signal.SIGSTOP)
            time.sleep(2.5)  # noqa: ASYNC251 - our event loop is what stands still
            os.kill(life.pid, signal.SIGCONT)

        assert (house.board.current.generation, house.supervisor.departures) == (1, ())
        assert house.dispatch.tally.served == 1


async def test_poisoned_worker_is_replaced(opened: Open) -> None:
    """A worker whose answers are empty is replaced after the limit's last one, with that cause."""
    scenario = {"1": {"generate": {"tokens": 0}}, "default": {}}
    async with opened(scenario, budgets=replace(WATCHFUL, bad_answers=3)) as house:
        for _ in range(3):
            assert await house.asked() == ()
        await house.ready(generation=2)

        assert house.supervisor.departures[0].cause == "poisoned: 3 answers in a row were empty or failed"
        assert await house.asked() == answer(GENERATE, 6)
