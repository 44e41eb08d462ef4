"""What the supervisor is told to do: stop, restart, rewarm; in virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from stoker.daemon.lifecycle import Outcome, Policy, WarmupEnded
from stoker.daemon.rewarms import REPORT_GRACE, RewarmRefused
from stoker.ipc.messages import WarmPrefix
from tests.fakes.fake_life import NEVER, Course
from tests.fakes.scene import Scene, supervised

pytestmark = pytest.mark.anyio

PROMPT = WarmPrefix(name="agent", system="you are an agent")


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


# -- orders ------------------------------------------------------------------------------------------------


async def test_stop_ends_run() -> None:
    """Stop drains, terminates, reaps, and then `run` returns."""
    scene = Scene((Course(drain=3),), Policy())
    scene.supervisor.start()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.supervisor.run)
        await scene.until("ready")
        scene.supervisor.stop()

    assert scene.now == 7 + 3 + 0.2
    assert scene.lives[0].calls[3:] == [(7, "drain"), (10, "terminate")]
    assert scene.lives[0].reaped
    assert (scene.board.current.phase, scene.board.current.reason) == ("down", "stopped")


async def test_stop_escalates_within_its_budget() -> None:
    """A worker that neither drains nor hears TERM is killed after the drain timeout and the grace."""
    async with supervised(Course(drain=NEVER, term=NEVER, kill=0.5)) as scene:
        await scene.until("ready")
        scene.supervisor.stop()
        await scene.until("down")

        assert scene.lives[0].calls[3:] == [(7, "drain"), (37, "terminate"), (42, "kill")]
        assert scene.now == 42.5


async def test_second_stop_does_not_drain() -> None:
    """Stop said again terminates at once, even when both come in the same instant."""
    async with supervised(Course(drain=NEVER)) as scene:
        await scene.until("ready")
        scene.supervisor.stop()
        scene.supervisor.stop()
        await scene.until("down")

        assert scene.now == 7.2


async def test_stop_during_start() -> None:
    """A worker that is not ready serves nobody, so a stop doesn't drain it."""
    async with supervised(Course(hello=NEVER)) as scene:
        await scene.until("starting")
        scene.supervisor.stop()
        await scene.until("down")

        assert scene.lives[0].calls == [(0, "run"), (0, "terminate")]


async def test_stop_before_run() -> None:
    """A supervisor that was stopped before it ran starts nothing."""
    scene = Scene((Course(),), Policy())
    scene.supervisor.start()
    scene.supervisor.stop()

    await scene.supervisor.run()

    assert scene.lives == []


@pytest.mark.parametrize("phase", ["backoff", "failed"])
async def test_stop_at_rest(phase: str) -> None:
    """Where nothing runs, stop has nothing to wait for."""
    policy = Policy(restart_limit=0 if phase == "failed" else 5)
    async with supervised(Course(dies=0.5), policy=policy) as scene:
        await scene.until(phase)
        scene.supervisor.stop()
        await scene.until("down")

        assert (scene.now, len(scene.lives)) == (0.5, 1)


async def test_stop_is_for_good() -> None:
    """A restart or start that comes after a stop does not bring the worker back."""
    async with supervised(Course(drain=5)) as scene:
        await scene.until("ready")
        scene.supervisor.stop()
        await anyio.sleep(1)
        scene.supervisor.restart(cold=False)
        scene.supervisor.start()
        await scene.until("down")
        await anyio.sleep(1000)

        assert len(scene.lives) == 1


async def test_restart_drains_and_warms_again() -> None:
    """Restart lets running requests end, then a new generation starts and is warmed before it is ready."""
    async with supervised(Course(drain=2)) as scene:
        await scene.until("ready")
        scene.supervisor.restart(cold=False)
        stopping = await scene.until("stopping")
        ready = await scene.until("ready", generation=2)

        assert scene.now == 7 + 2 + 0.2 + 7
        assert stopping.expected
        assert (ready.generation, ready.warm) == (2, True)
        assert scene.lives[1].calls == [(0, "run"), (1, "load"), (3, "warm [] 0")]
        assert [departure.expected for departure in scene.supervisor.departures] == [True]


async def test_cold_restart_skips_warmup_once() -> None:
    """A cold restart is ready without warmth, and the restart after it is warm again."""
    async with supervised() as scene:
        await scene.until("ready")
        scene.supervisor.restart(cold=True)
        cold = await scene.until("ready", generation=2)
        scene.supervisor.restart(cold=False)
        warm = await scene.until("ready", generation=3)

        assert (cold.warm, cold.reason, cold.warmup.outcome) == (False, "cold restart", "disabled")
        assert (warm.warm, warm.reason) == (True, None)


async def test_only_one_life_at_a_time() -> None:
    """Through crashes and restarts, the next worker is made only after the last one was reaped."""
    overlaps: list[int] = []
    async with supervised(Course(dies=8), Course(kill=3), Course()) as scene:
        slot = scene.supervisor._current
        make = slot.make_life

        def checked(*arguments: Any) -> Any:
            overlaps.extend(life.generation for life in scene.lives if not life.reaped)
            return make(*arguments)

        slot.make_life = checked
        await scene.until("ready", generation=2)
        scene.lives[1].lose_link()
        await scene.until("ready", generation=3)
        scene.supervisor.restart(cold=False)
        await scene.until("ready", generation=4)

    assert overlaps == []


# -- rewarm ------------------------------------------------------------------------------------------------


async def test_rewarm_stays_ready() -> None:
    """A rewarm ends with the worker's report; meanwhile the service is ready, and shows progress."""
    async with supervised() as scene:
        await scene.until("ready")
        seen = len(scene.seen)
        ended = await scene.supervisor.rewarm((PROMPT,))
        await anyio.wait_all_tasks_blocked()

        assert (ended.outcome, ended.seconds, scene.now) == (Outcome.SUCCEEDED, 4, 11)
        assert scene.lives[0].calls[-1] == (7.0, "warm ['agent'] 1")
        assert all(readiness.ready for _, readiness in scene.seen[seen:])
        assert any(readiness.progress for _, readiness in scene.seen[seen:])
        assert scene.board.current.progress is None


async def test_rewarm_makes_a_cold_worker_warm() -> None:
    """After a cold restart, a rewarm makes the service warm, and its reason for not being so goes."""
    async with supervised(policy=Policy(warmup_enabled=False)) as scene:
        cold = await scene.until("ready")
        await scene.supervisor.rewarm(())
        await anyio.wait_all_tasks_blocked()

        assert (cold.warm, cold.reason) == (False, "disabled")
        assert (scene.board.current.warm, scene.board.current.reason) == (True, None)


async def test_rewarm_needs_a_ready_worker() -> None:
    """A rewarm of a worker that is not ready is refused at once, and says so."""
    async with supervised() as scene:
        await scene.until("loading")

        with pytest.raises(RewarmRefused, match="the worker is loading; try again when it is ready"):
            await scene.supervisor.rewarm(())
        assert scene.now == 1


async def test_one_rewarm_at_a_time() -> None:
    """A second rewarm is refused while the first goes on, which is not disturbed."""
    ended: list[WarmupEnded] = []
    async with supervised() as scene, anyio.create_task_group() as tasks:
        await scene.until("ready")

        async def first() -> None:
            ended.append(await scene.supervisor.rewarm(()))

        tasks.start_soon(first)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RewarmRefused, match="already under way"):
            await scene.supervisor.rewarm(())
        assert scene.now == 7

    assert [end.ticket for end in ended] == [1]


async def test_worker_death_during_rewarm() -> None:
    """If the worker dies, whoever waits for its rewarm hears of it, and the successor is warmed."""
    async with supervised(Course(dies=8), Course()) as scene:
        await scene.until("ready")

        with pytest.raises(RewarmRefused, match="died during the rewarm"):
            await scene.supervisor.rewarm(())
        assert scene.now == 8
        assert (await scene.until("ready", generation=2)).warm


async def test_slow_rewarm_is_abandoned() -> None:
    """A rewarm over the warmup budget is abandoned; the report of what it has is its answer."""
    async with supervised(policy=Policy(warmup_timeout=60)) as scene:
        await scene.until("ready")
        scene.lives[0].course = Course(warm=1000, report=2)
        ended = await scene.supervisor.rewarm(())

        assert (ended.outcome, scene.now) == (Outcome.ABANDONED, 7 + 60 + 2)
        assert scene.board.current.warm, "the warmth that was there is kept"


async def test_rewarm_never_waits_forever() -> None:
    """A worker that doesn't even report on an abandoned rewarm leaves nobody waiting."""
    async with supervised(policy=Policy(warmup_timeout=60)) as scene:
        await scene.until("ready")
        scene.lives[0].course = Course(warm=NEVER, report=NEVER)

        with pytest.raises(RewarmRefused, match="did not report"):
            await scene.supervisor.rewarm(())
        assert scene.now == 7 + 60 + REPORT_GRACE


async def test_caller_may_leave_a_rewarm() -> None:
    """If nobody waits for a rewarm any more, it goes on, and its end troubles nobody."""
    async with supervised() as scene:
        await scene.until("ready")
        with anyio.move_on_after(1):
            await scene.supervisor.rewarm(())
        await anyio.sleep(10)

        assert scene.board.current.ready
        assert (await scene.supervisor.rewarm(())).ticket == 2
