"""Supervisor, life and process together, with fake workers that are real processes."""

from __future__ import annotations

import functools
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import psutil
import pytest

from stoker.daemon.life import Launch
from stoker.ipc.control_messages import RequestCounts
from stoker.ipc.messages import Delta, Finished
from tests.fakes.fake_daemon import GENERATE, LOAD
from tests.fakes.fake_scenario import COMMAND, answer, text_of
from tests.fakes.house import EAGER, House, Open, housing

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_children")]


@pytest.fixture
def opened(short_dir: Path) -> Open:
    """`housing`, with a directory for the sockets already given."""
    return functools.partial(housing, short_dir)


async def test_killed_worker_is_replaced_unasked(opened: Open) -> None:
    """After kill -9 of a ready worker a new generation is ready and warm, without anyone asking."""
    async with opened() as house:
        assert (await house.ready()).warm
        house.kill()
        again = await house.ready(generation=2)

        assert (again.generation, again.warm) == (2, True)
        [departure] = house.supervisor.departures
        assert "killed by SIGKILL, not by Stoker" in departure.cause
        assert not departure.expected
        assert house.supervisor.last_words[-1].startswith("fake worker of generation 1")


async def test_killing_storm_is_bounded(opened: Open) -> None:
    """Kills without end lead to `failed` after the limit, leak no descriptor, and a person can start it again."""
    limit = 40
    async with opened(policy=replace(EAGER, restart_limit=limit)) as house:
        await house.ready()
        descriptors = psutil.Process().num_fds()
        for generation in range(1, limit + 2):
            await house.ready(generation)
            house.kill()
        failed = await house.until(lambda r: r.phase == "failed")

        assert failed.reason is not None
        assert f"died {limit + 1} times" in failed.reason
        assert (failed.generation, failed.expected) == (limit + 1, False)
        house.supervisor.start()
        await house.ready(limit + 2)
        assert psutil.Process().num_fds() == descriptors


async def test_crash_at_start_fails_with_last_words(opened: Open) -> None:
    """A worker that never comes up is tried up to the limit; then its last words are there to be read."""
    scenario = {"faults": [{"at": "start", "do": "exit", "code": 70}]}
    async with opened(scenario) as house:
        failed = await house.until(lambda r: r.phase == "failed")

        assert failed.reason is not None
        assert "last: exited with code 70" in failed.reason
        assert house.supervisor.last_words == ("fault: exit at start 0",)


async def test_warmup_over_time_is_ready_and_keeps_its_part(opened: Open) -> None:
    """A warmup over its budget makes the worker ready at once, and what it has comes as a late report."""
    scenario = {"warm": {"seconds": 100, "steps": 10_000}}
    policy = replace(EAGER, warmup_timeout=0.1)
    async with opened(scenario, policy) as house:
        ready = await house.ready()
        assert (ready.warm, ready.reason, ready.generation) == (False, "timeout", 1)

        reported = await house.until(lambda r: bool(r.warmup.prefixes))
        assert (reported.ready, reported.warm) == (True, False)
        assert reported.warmup.prefixes[0].tokens_warm < reported.warmup.prefixes[0].tokens


async def test_lack_of_descriptors_is_waited_out(opened: Open) -> None:
    """While no process can be started for want of descriptors, nothing is counted as a crash; then it goes on."""
    async with opened(policy=replace(EAGER, restart_limit=1)) as house:
        await house.ready()
        with no_descriptors():
            house.kill()
            lacking = await house.until(lambda r: "Too many open files" in (r.reason or ""))
            await house.until(lambda r: r.generation > lacking.generation + 4)
        again = await house.ready(generation=2)

        assert again.generation > 5
        causes = [departure.cause for departure in house.supervisor.departures]
        assert len(causes) == 2
        assert "killed by SIGKILL" in causes[0]


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process may open no further file; those that are open stay."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_other_protocol_version_fails_at_once(opened: Open) -> None:
    """A worker that speaks another version of the protocol is one attempt, with both versions in the reason."""
    async with opened({"hello": {"protocol": 99}}) as house:
        failed = await house.until(lambda r: r.phase == "failed")

        assert failed.generation == 1
        assert "protocol 1, the worker 99" in (failed.reason or "")


async def test_mute_worker_is_replaced(opened: Open) -> None:
    """A worker that never greets is killed at the hello timeout, and the next one serves."""
    scenario = {"1": {"faults": [{"at": "start", "do": "hang"}]}, "default": {}}
    policy = replace(EAGER, hello_timeout=2.0)
    async with opened(scenario, policy) as house:
        ready = await house.ready()

        assert ready.generation == 2
        assert house.supervisor.departures[0].cause == "said no hello within 2 s of its start"


async def test_stop_of_a_stubborn_worker(opened: Open) -> None:
    """A worker that ignores TERM is gone when the supervisor's run returns."""
    async with opened({"ignore_term": True, "ignore_eof": True}) as house:
        await house.ready()
        house.supervisor.stop()
        await house.until(lambda r: r.phase == "down")

        assert [departure.cause for departure in house.supervisor.departures] == ["ended by SIGKILL, as asked"]


async def test_answer_survives_its_worker(opened: Open) -> None:
    """A worker killed in mid-answer is a pause: the text goes on token for token, and is counted as resumed."""
    scenario = {"1": {"faults": [{"at": "generate", "do": "exit", "step": 3}]}, "default": {}}
    async with opened(scenario) as house:
        deltas: list[Delta] = []
        async with house.dispatch.generate(GENERATE) as events:
            async for event in events:
                if isinstance(event, Delta):
                    deltas.append(event)
                last = event

        tokens = tuple(token for delta in deltas for token in delta.tokens)
        assert tokens == answer(GENERATE, 6)
        assert "".join(delta.text for delta in deltas) == text_of(answer(GENERATE, 6))
        assert isinstance(last, Finished)
        assert house.board.current.generation == 2
        assert house.dispatch.tally.snapshot() == RequestCounts(served=1, resumed=1)


async def test_restart_fails_no_request(opened: Open) -> None:
    """Requests before, during and after a restart are all answered in full."""
    async with opened({"generate": {"tokens_per_second": 200}}) as house:
        answers: list[tuple[int, ...]] = []

        async def ask() -> None:
            tokens: tuple[int, ...] = ()
            async with house.dispatch.generate(GENERATE) as events:
                async for event in events:
                    tokens += event.tokens if isinstance(event, Delta) else ()
            answers.append(tokens)

        await house.ready()
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            house.supervisor.restart(cold=False)
            await house.until(lambda r: r.phase == "stopping")
            for _ in range(4):
                tasks.start_soon(ask)
            await house.ready(generation=2)
            tasks.start_soon(ask)

        assert answers == [answer(GENERATE, 6)] * 9
        assert house.dispatch.tally.snapshot() == RequestCounts(served=9)


async def test_hard_cancellation_leaves_nothing(short_dir: Path) -> None:
    """If the supervisor is cancelled instead of stopped, the worker is killed and reaped all the same."""
    environ = {**os.environ, "FAKE_WORKER": json.dumps({"ignore_term": True, "ignore_eof": True})}
    launch = Launch(COMMAND, lambda _: environ, short_dir, LOAD, (), lambda _: None)
    house = House(launch, EAGER)
    async with anyio.create_task_group() as tasks:
        house.supervisor.start()
        tasks.start_soon(house.supervisor.run)
        await house.ready()
        tasks.cancel_scope.cancel()

    assert psutil.Process().children(recursive=True) == []
