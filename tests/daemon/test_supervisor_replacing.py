"""Replacement beside the worker that serves, in virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from stoker.daemon.lifecycle import Policy
from tests.fakes.fake_life import NEVER, Course
from tests.fakes.fake_peer import joined
from tests.fakes.scene import living, supervised

pytestmark = pytest.mark.anyio

GOOD = Course()


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


async def test_ready_throughout() -> None:
    """A replacement beside is ready all the time; at the swap the generation changes, and the old worker drains."""
    async with supervised(Course(drain=5), GOOD, room=True) as scene:
        await scene.until("ready")
        scene.supervisor.restart()
        ready = await scene.until("ready", generation=2)

        assert scene.now == 14
        assert all(readiness.ready for at, readiness in scene.seen if at >= 7)
        assert (ready.generation, ready.warm, ready.successor) == (2, True, None)
        assert scene.lives[0].calls[-1:] == [(14, "drain")]
        assert living(scene) == [1, 2]
        await anyio.sleep(6)
        assert living(scene) == [2]
        told = [(one.generation, one.cause, one.expected) for one in scene.supervisor.departures]
        assert told == [(1, "replaced by generation 2", True)]


async def test_successor_is_shown_on_its_way() -> None:
    """While the successor comes up, its generation, phase and progress are part of what is published."""
    async with supervised(room=True) as scene:
        await scene.until("ready")
        scene.supervisor.restart()
        await scene.until("ready", generation=2)

    shown = [(at, r.successor.phase, r.successor.generation) for at, r in scene.seen if r.successor]
    assert list(dict.fromkeys(shown)) == [
        (7, "starting", 2),
        (8, "loading", 2),
        (9, "loading", 2),
        (10, "loading", 2),
        (10, "warming", 2),
    ]
    assert [r.generation for _, r in scene.seen if r.successor] == [1] * len(shown)


async def test_new_requests_change_over_at_the_swap() -> None:
    """Until the successor is ready requests go to the old worker; from then on to the new one, while that drains."""
    async with supervised(Course(drain=5), GOOD, room=True) as scene, joined(1) as (old, _), joined(2) as (new, _):
        await scene.until("ready")
        scene.lives[0].link = old
        scene.supervisor.restart()
        await anyio.sleep(6.9)
        scene.lives[1].link = new
        before = scene.supervisor.serving
        await scene.until("ready", generation=2)

        assert (before, scene.supervisor.serving) == (old, new)
        assert scene.supervisor.life is scene.lives[1]


@pytest.mark.parametrize(
    ("course", "why"),
    [
        pytest.param(Course(load_failed="no such model", fatal=True), "no such model", id="refused model"),
        pytest.param(Course(hello=NEVER), "said no hello within 10 s of its start", id="mute"),
        pytest.param(Course(dies=3.5, cause="exited with code 1"), "exited with code 1", id="dies in warmup"),
    ],
)
async def test_old_worker_serves_on(course: Course, why: str) -> None:
    """A successor that does not become ready is one attempt: the old worker serves on, and the failure is told."""
    async with supervised(GOOD, course, GOOD, room=True) as scene:
        await scene.until("ready")
        scene.supervisor.restart()
        await anyio.sleep(1000)

        now = scene.board.current
        assert (now.ready, now.generation, now.successor, now.replacement_failed) == (True, 1, None, why)
        assert all(readiness.ready for at, readiness in scene.seen if at >= 7)
        assert living(scene) == [1]
        assert [(d.generation, d.cause) for d in scene.supervisor.departures] == [(2, why)]


async def test_generation_numbers_are_never_given_twice() -> None:
    """After a successor that failed, the next worker has a number of its own, beside or in place."""
    refused = Course(load_failed="no such model", fatal=True)
    async with supervised(Course(dies=200), refused, GOOD, refused, GOOD, room=True) as scene:
        await scene.until("ready")
        scene.supervisor.restart()
        await anyio.sleep(100)
        await scene.until("ready", generation=2)
        assert scene.board.current.generation == 3
        scene.supervisor.restart()
        await anyio.sleep(100)
        scene.supervisor.restart()
        await scene.until("ready", generation=4)

    assert [life.generation for life in scene.lives] == [1, 2, 3, 4, 5]
    assert scene.board.current.generation == 5


async def test_death_of_the_old_worker_promotes_the_successor() -> None:
    """If the worker that serves dies meanwhile, no third one is started: the successor takes its place as it is."""
    async with supervised(Course(dies=10.5, words=("boom",)), GOOD, room=True) as scene:
        await scene.until("ready")
        scene.supervisor.restart()
        warming = await scene.until("warming")
        assert (scene.now, warming.generation, warming.ready, warming.successor) == (10.5, 2, False, None)
        await scene.until("ready", generation=2)

        assert scene.now == 14
        assert len(scene.lives) == 2
        [departure] = scene.supervisor.departures
        assert (departure.generation, departure.expected) == (1, False)
        assert scene.supervisor.last_words == ("boom",)


async def test_promoted_successor_is_supervised_like_any_other() -> None:
    """A successor that was promoted and dies is brought up again, under the same limits."""
    async with supervised(Course(dies=8.5), Course(dies=5), GOOD, room=True) as scene:
        await scene.until("ready")
        scene.supervisor.restart()
        await scene.until("backoff")
        assert (await scene.until("ready")).generation == 3


async def test_newer_order_supersedes() -> None:
    """A restart during a replacement ends the successor that was coming, and raises the one that is wanted."""
    async with supervised(room=True) as scene:
        await scene.until("ready")
        scene.supervisor.restart()
        await anyio.sleep(3)
        scene.supervisor.restart(cold=True)
        ready = await scene.until("ready", generation=2)

        assert (ready.generation, ready.reason) == (3, "cold restart")
        assert all(readiness.ready for at, readiness in scene.seen if at >= 7)
        assert scene.lives[1].reaped


async def test_order_while_the_old_one_drains_waits_for_its_end() -> None:
    """There are never three workers at a time."""
    async with supervised(Course(drain=20), GOOD, room=True) as scene:
        await scene.until("ready")
        scene.supervisor.restart()
        await scene.until("ready", generation=2)
        scene.supervisor.restart()
        await anyio.sleep(10)
        assert living(scene) == [1, 2]
        await scene.until("ready", generation=3)

        assert all(readiness.ready for at, readiness in scene.seen if at >= 7)


async def test_drain_has_a_bound() -> None:
    """What the old worker does not end within the drain timeout is left to resume; the old worker is ended."""
    policy = Policy(drain_timeout=30, stop_grace=5)
    async with supervised(Course(drain=NEVER, term=NEVER), GOOD, room=True, policy=policy) as scene:
        await scene.until("ready")
        scene.supervisor.restart()
        await scene.until("ready", generation=2)
        await anyio.sleep(40)

        assert scene.lives[0].calls[3:] == [(14, "drain"), (44, "terminate"), (49, "kill")]
        assert living(scene) == [2]


async def test_not_ready_is_restarted_in_place() -> None:
    """Where nobody serves yet there is nothing to keep serving: a restart is in place, whatever room there is."""
    async with supervised(Course(load=(NEVER,)), GOOD, room=True) as scene:
        await scene.until("loading")
        scene.supervisor.restart()
        await scene.until("ready")

        assert [phase for _, phase in scene.phases][:4] == ["starting", "loading", "stopping", "starting"]


@pytest.mark.parametrize("after", [3.0, 8.0], ids=["preparing", "retiring"])
async def test_stop_ends_both(after: float) -> None:
    """A stop during a replacement ends both workers, and `run` returns when both are reaped."""
    async with supervised(Course(drain=NEVER), GOOD, room=True) as scene:
        await scene.until("ready")
        scene.supervisor.restart()
        await anyio.sleep(after)
        assert living(scene) == [1, 2]
        scene.supervisor.stop()
        await scene.until("down")
        await anyio.sleep(35)

        assert living(scene) == []


async def test_hurried_stop_ends_both_at_once() -> None:
    """Said twice, a stop waits for the requests of neither worker."""
    async with supervised(Course(drain=NEVER), Course(drain=NEVER), room=True) as scene:
        await scene.until("ready")
        scene.supervisor.restart()
        await scene.until("ready", generation=2)
        scene.supervisor.stop()
        scene.supervisor.stop()
        await scene.until("down")
        await anyio.sleep(0.1)

        assert living(scene) == []
        assert scene.now < 15


async def test_changed_worker_is_used_only_if_it_becomes_ready() -> None:
    """What makes the workers changes with a successor that is ready; else the old way stays, for crashes too."""
    made: list[str] = []
    async with supervised(
        Course(dies=300), Course(load_failed="no such model", fatal=True), GOOD, room=True
    ) as scene:
        await scene.until("ready")

        def changed(*arguments: Any) -> Any:
            made.append("changed")
            return scene.make_life(*arguments)

        scene.supervisor.restart(make_life=changed)
        await anyio.sleep(100)
        assert scene.board.current.replacement_failed == "no such model"
        await scene.until("ready", generation=3)
        assert made == ["changed"]

        scene.supervisor.restart(make_life=changed)
        await scene.until("ready", generation=4)
        scene.lives[-1].die("exited with code 1")
        await scene.until("ready", generation=5)
        assert made == ["changed"] * 3


async def test_end_of_the_old_worker_is_news() -> None:
    """Whoever follows the board hears when the old worker has ended, although nothing of the new one changes."""
    async with supervised(Course(drain=5), GOOD, room=True) as scene:
        await scene.until("ready")
        scene.supervisor.restart()
        await scene.until("ready", generation=2)
        await anyio.sleep(10)

    heard = [(at, readiness.departures) for at, readiness in scene.seen if at >= 14]
    assert heard == [(14, 0), (19.2, 1)]
