"""Replacement under load, with workers that are real processes: both ways, and no request fails."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import anyio
import psutil
import pytest

from stoker.ipc.control_messages import Readiness
from tests.fakes.fake_daemon import GENERATE
from tests.fakes.fake_scenario import answer
from tests.fakes.house import EAGER, House, Open, housing

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_children")]

ROUNDS = 8
"""Restarts in a row; `bench/chaos.py` does hundreds."""


@pytest.fixture
def opened(short_dir: Path) -> Open:
    """`housing`, with a directory for the sockets already given."""
    return functools.partial(housing, short_dir)


async def _ask_on(house: House, answers: list[tuple[int, ...]], ended: anyio.Event) -> None:
    while not ended.is_set():
        answers.append(await house.asked())


async def _follow(house: House, seen: list[Readiness]) -> None:
    async for readiness in house.board.watch():
        seen.append(readiness)  # noqa: PERF401 - it is read before the end


@pytest.mark.parametrize("room", [True, False], ids=["beside", "in place"])
async def test_restarts_under_load_fail_no_request(opened: Open, room: bool) -> None:
    """Restart after restart while clients ask without a pause: every answer is whole; beside, ready never ends."""
    seen: list[Readiness] = []
    answers: list[tuple[int, ...]] = []
    ended = anyio.Event()
    scenario = {"generate": {"tokens_per_second": 200}}
    async with opened(scenario, room=room) as house, anyio.create_task_group() as beside:
        await house.ready()
        beside.start_soon(_follow, house, seen)
        async with anyio.create_task_group() as clients:
            for _ in range(4):
                clients.start_soon(_ask_on, house, answers, ended)
            for generation in range(2, ROUNDS + 2):
                house.supervisor.restart()
                await house.ready(generation)
            ended.set()
        beside.cancel_scope.cancel()

    assert set(answers) == {answer(GENERATE, 6)}
    assert house.dispatch.tally.failed == 0
    assert all(readiness.ready for readiness in seen) is room


async def test_what_the_drain_leaves_is_resumed(opened: Open) -> None:
    """An answer that outlasts the drain's bound moves over to the successor, token for token."""
    scenario = {"1": {"generate": {"tokens_per_second": 2}}, "default": {}}
    async with opened(scenario, replace(EAGER, drain_timeout=0.2), room=True) as house:
        await house.ready()
        async with anyio.create_task_group() as tasks:
            answers: list[tuple[int, ...]] = []

            async def ask() -> None:
                answers.append(await house.asked())

            tasks.start_soon(ask)
            await anyio.sleep(0.7)  # one token has come, and the last would in 3 s
            house.supervisor.restart()

        assert answers == [answer(GENERATE, 6)]
        assert (house.board.current.generation, house.dispatch.tally.resumed) == (2, 1)


async def test_broken_successor_leaves_the_old_one_serving(opened: Open) -> None:
    """A successor that never comes up is reaped, and the old worker answers as before."""
    scenario = {"1": {}, "default": {"faults": [{"at": "load", "do": "exit", "code": 70}]}}
    async with opened(scenario, room=True) as house:
        await house.ready()
        house.supervisor.restart()
        told = await house.until(lambda r: r.replacement_failed is not None)

        assert (told.ready, told.generation) == (True, 1)
        assert told.replacement_failed == "exited with code 70"
        assert len(psutil.Process().children(recursive=True)) == 1
        assert await house.asked() == answer(GENERATE, 6)
