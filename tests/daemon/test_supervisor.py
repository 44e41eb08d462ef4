"""The shell around the machine, in virtual time: fake lives, exact seconds."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from stoker.daemon.lifecycle import LoadAdvanced, Outcome, Policy
from stoker.ipc.control_messages import PrefixStatus, ProgressStatus
from stoker.ipc.messages import Progress
from tests.fakes.fake_life import NEVER, PREFIX, Course
from tests.fakes.fake_peer import joined
from tests.fakes.scene import supervised

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


# -- the good course ---------------------------------------------------------------------------------------


async def test_full_start() -> None:
    """From start to ready: spawned, greeted, loaded, warmed, each announced at its second, each ordered once."""
    async with supervised() as scene:
        ready = await scene.until("ready")

        assert scene.phases == [(0, "starting"), (1, "loading"), (3, "warming"), (7, "ready")]
        assert (ready.ready, ready.warm, ready.reason, ready.generation) == (True, True, None, 1)
        assert ready.warmup.prefixes == (PrefixStatus.of(PREFIX),)
        assert scene.lives[0].calls == [(0, "run"), (1, "load"), (3, "warm [] 0")]


async def test_never_ready_before_warm() -> None:
    """No snapshot before the warmup's end says ready."""
    async with supervised() as scene:
        await scene.until("ready")

    assert [readiness.ready for at, readiness in scene.seen if at < 7] == [False] * (len(scene.seen) - 1)


async def test_progress_is_on_the_board() -> None:
    """Progress is published as it comes, and taken away with the phase that it belongs to."""
    async with supervised() as scene:
        ready = await scene.until("ready")

    shown = [(at, readiness.progress) for at, readiness in scene.seen if readiness.progress]
    assert shown == [
        (2, ProgressStatus(stage="load", done=1, total=2)),
        (3, ProgressStatus(stage="load", done=2, total=2)),
        (3, ProgressStatus(stage="warm", done=0, total=10, name="system")),
    ]
    assert ready.progress is None


async def test_since_is_unix_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots say in Unix time when their phase was entered, however much is published in it."""
    monkeypatch.setattr(time, "time", lambda: 1e9 + anyio.current_time())
    async with supervised() as scene:
        await scene.until("ready")
        began = 1e9 + scene.began

    since = {readiness.phase: readiness.since for _, readiness in scene.seen[1:]}
    assert since == {"starting": began, "loading": began + 1, "warming": began + 3, "ready": began + 7}


async def test_serves_only_when_ready() -> None:
    """The worker's link is given out only while the worker is ready and its connection lives."""
    async with supervised() as scene, joined() as (link, _):
        await scene.until("warming")
        scene.lives[0].link = link
        warming = scene.supervisor.serving
        await scene.until("ready")
        ready = scene.supervisor.serving
        link.lose("the worker closed its connection")
        lost = scene.supervisor.serving

        assert (warming, ready, lost) == (None, link, None)


async def test_draining_worker_serves_nothing_new() -> None:
    """As soon as a stop was asked for, no new request is given to the worker."""
    async with supervised(Course(drain=5)) as scene, joined() as (link, _):
        await scene.until("ready")
        scene.lives[0].link = link

        scene.supervisor.stop()
        await scene.until("stopping")

        assert scene.supervisor.serving is None
        assert scene.supervisor.life is scene.lives[0]


# -- slow and dead on the way ------------------------------------------------------------------------------


async def test_warmup_timeout_to_the_second() -> None:
    """A warmup over its budget is abandoned at that very second: ready, not warm, because of the timeout."""
    policy = Policy(warmup_timeout=2.5)
    async with supervised(Course(warm=20), policy=policy) as scene:
        ready = await scene.until("ready")

        assert scene.now == 5.5
        assert (ready.ready, ready.warm, ready.reason) == (True, False, "timeout")
        assert (ready.warmup.outcome, ready.warmup.seconds) == ("abandoned", 2.5)
        assert (5.5 - 0, "abandon_warmup") in scene.lives[0].calls


async def test_late_report_of_an_abandoned_warmup() -> None:
    """What an abandoned warmup has computed is reported when the worker says it, in the same phase: here all."""
    async with supervised(Course(warm=20, report=0.5), policy=Policy(warmup_timeout=2)) as scene:
        before = await scene.until("ready")
        await anyio.sleep(1)

        now = scene.board.current
        assert (before.warmup.prefixes, now.warmup.prefixes) == ((), (PrefixStatus.of(PREFIX),))
        assert (now.phase, now.warm, now.since, now.progress) == ("ready", True, before.since, None)


async def test_failed_warmup_is_ready_all_the_same() -> None:
    """A worker that can't warm serves cold, and says why."""
    async with supervised(Course(outcome=Outcome.FAILED)) as scene:
        ready = await scene.until("ready")

        assert (ready.ready, ready.warm, ready.reason) == (True, False, "failed")


async def test_slow_load_with_progress_is_left_alone() -> None:
    """Loading may take a day, if it moves within each stall timeout."""
    policy = Policy(load_stall_timeout=100)
    async with supervised(Course(load=(99.0,) * 900), policy=policy) as scene:
        await scene.until("ready")

        assert scene.now == 1 + 99 * 900 + 4
        assert len(scene.lives) == 1


async def test_stalled_load_is_ended() -> None:
    """Loading that stops moving is ended at the stall timeout after its last progress, and the cause names it."""
    policy = Policy(load_stall_timeout=100)
    async with supervised(Course(load=(30, NEVER)), Course(), policy=policy) as scene:
        backoff = await scene.until("backoff")

        assert scene.now == 1 + 30 + 100
        assert backoff.reason == "loading made no progress for 100 s"


async def test_mute_worker_is_ended() -> None:
    """A worker that never greets is ended at the hello timeout, and another one is tried."""
    async with supervised(Course(hello=NEVER), Course()) as scene:
        backoff = await scene.until("backoff")
        assert (scene.now, backoff.reason) == (10, "said no hello within 10 s of its start")

        assert (await scene.until("ready")).generation == 2


async def test_refused_model_is_not_tried_again() -> None:
    """A model that can't be loaded anywhere is one attempt, then `failed` with the worker's words."""
    async with supervised(Course(load_failed="no such model", fatal=True)) as scene:
        failed = await scene.until("failed")
        await anyio.sleep(10_000)

        assert (failed.reason, failed.expected, failed.retry_after) == ("no such model", False, None)
        assert len(scene.lives) == 1


async def test_refusal_that_may_pass_is_tried_again() -> None:
    """A load that failed for a reason that may pass is tried again after a pause."""
    async with supervised(Course(load_failed="no memory"), Course()) as scene:
        assert (await scene.until("backoff")).reason == "no memory"
        assert (await scene.until("ready")).generation == 2


async def test_crash_loop_slows_down_and_fails() -> None:
    """Deaths at birth are retried after 1, 2, 4, 8 and 16 s, then the slot is `failed`, with the last words."""
    async with supervised(Course(dies=0.5, words=("Traceback", "ImportError: mlx"))) as scene:
        failed = await scene.until("failed")

        births = [at for at, phase in scene.phases if phase == "starting"]
        assert births == [0, 1.5, 4, 8.5, 17, 33.5]
        assert failed.reason is not None
        assert failed.reason.startswith("died 6 times within 300 s; last: crashed with SIGABRT")
        assert scene.supervisor.last_words == ("Traceback", "ImportError: mlx")
        assert scene.supervisor.life is None
        assert not failed.expected


async def test_backoff_says_when_it_ends() -> None:
    """While it waits, the snapshot counts down to the next attempt; afterwards there is nothing to count."""
    policy = Policy(backoff_base=8, backoff_jitter=0)
    async with supervised(Course(dies=0.5), Course(), policy=policy) as scene:
        assert (await scene.until("backoff")).retry_after == 8
        await anyio.sleep(3)
        assert scene.board.current.retry_after == 5

        assert (await scene.until("starting", generation=2)).retry_after is None


async def test_failed_waits_for_a_person() -> None:
    """`failed` lasts until somebody starts it again, and then the count begins anew."""
    policy = Policy(restart_limit=1, backoff_jitter=0)
    async with supervised(Course(dies=0.5), Course(dies=0.5), Course(), policy=policy) as scene:
        await scene.until("failed")
        await anyio.sleep(86_400)
        assert len(scene.lives) == 2

        scene.supervisor.start()
        assert (await scene.until("ready")).generation == 3


async def test_old_healthy_worker_is_replaced_at_once() -> None:
    """A worker that was ready for long and dies has a successor in the same instant."""
    async with supervised(Course(dies=100), Course()) as scene:
        again = await scene.until("starting", generation=2)

        assert (scene.now, again.generation) == (100, 2)
        assert "backoff" not in [phase for _, phase in scene.phases]


async def test_lost_link_ends_the_worker() -> None:
    """A worker that can't be talked to is not ready any more, is ended, and is replaced."""
    async with supervised(Course(kill=1.5)) as scene:
        await scene.until("ready")
        scene.lives[0].lose_link()
        await anyio.wait_all_tasks_blocked()

        assert not scene.board.current.ready
        assert (await scene.until("ready", generation=2)).ready
        [departure] = scene.supervisor.departures
        assert departure.cause == "the worker closed its connection"


async def test_worker_that_outlives_kill_is_killed_again() -> None:
    """KILL is repeated while the process sits in the kernel, and no second worker is started beside it."""
    async with supervised(Course(kill=7)) as scene:
        await scene.until("ready")
        scene.lives[0].lose_link()
        await anyio.sleep(6.9)

        assert scene.lives[0].calls[3:] == [(7, "kill"), (9, "kill"), (11, "kill"), (13, "kill")]
        assert len(scene.lives) == 1


# -- memory of the dead, and floods ------------------------------------------------------------------------


async def test_departures_are_in_unix_time() -> None:
    """Departures say when, who and why, in Unix time, and say the same each time they are asked for."""
    began = time.time()
    async with supervised(Course(dies=8, cause="exited with code 3"), Course()) as scene:
        await scene.until("backoff")
        [departure] = scene.supervisor.departures

        assert began - 0.001 <= departure.at <= time.time() + 0.001
        assert (departure.generation, departure.cause, departure.expected) == (1, "exited with code 3", False)
        await anyio.sleep(100)
        assert scene.supervisor.departures == (departure,)


async def test_departures_are_bounded() -> None:
    """Only the last departures are kept."""
    policy = Policy(departures_kept=4, restart_limit=1000)
    async with supervised(Course(dies=40), policy=policy) as scene:
        await scene.until("ready", generation=10)

        assert [departure.generation for departure in scene.supervisor.departures] == [6, 7, 8, 9]


async def test_last_words_of_the_unexpectedly_dead_only() -> None:
    """A worker that was asked to go leaves no last words; those of the last crash stay."""
    async with supervised(
        Course(dies=8, words=("boom",)), Course(words=("goodbye",)), Course(words=("hello",))
    ) as scene:
        await scene.until("ready", generation=2)
        scene.supervisor.restart(cold=False)
        await scene.until("ready", generation=3)

        assert scene.supervisor.last_words == ("boom",)


async def test_flood_of_progress_is_bounded() -> None:
    """A million progress events that come in one burst take one place in the inbox."""
    async with supervised(Course(load=(NEVER,))) as scene:
        await scene.until("loading")

        for _ in range(1_000_000):
            scene.supervisor.post(LoadAdvanced(1))

        assert len(scene.supervisor._inbox) == 1
        await anyio.wait_all_tasks_blocked()
        assert len(scene.supervisor._inbox) == 0


async def test_progress_of_a_dead_worker_is_not_shown() -> None:
    """What is read from a worker's connection after its death is not taken for its successor's progress."""
    async with supervised(Course(dies=5), Course()) as scene:
        await scene.until("loading", generation=2)
        scene.lives[0].on_progress(Progress(target=1, stage="warm", done=99, total=100))

        assert scene.board.current.progress is None


async def test_cancelled_run_ends_the_life() -> None:
    """If `run` is cancelled, the life is cancelled with it and not left behind."""
    async with supervised() as scene:
        await scene.until("ready")

    assert scene.lives[0].reaped


async def test_idle_supervisor_sleeps() -> None:
    """A ready supervisor has nothing to do until something happens: no timer runs."""
    async with supervised() as scene:
        await scene.until("ready")
        published = len(scene.seen)
        await anyio.sleep(86_000)

        assert len(scene.seen) == published
        assert scene.lives[0].calls[-1] == (3, "warm [] 0")
