"""Snapshots: each is seen by everybody who watches, and none is kept for who does not."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from stoker.daemon.lifecycle import Outcome, Phase, State, Warmup
from stoker.daemon.readiness import NOTHING_YET, Board, _Node, describe
from stoker.ipc.control_messages import PrefixStatus, ProgressStatus, Readiness, WarmupStatus
from stoker.ipc.messages import PrefixReport

pytestmark = pytest.mark.anyio

PREFIX = PrefixReport(name="system", tokens=10, tokens_warm=4, source="prefilled", seconds=1.0)


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


def snapshot(generation: int, phase: Phase = Phase.READY) -> Readiness:
    return describe(State(phase=phase, generation=generation, wanted=True), 0.0, None)


def held() -> list[_Node]:
    """The snapshots in memory that a watcher could still come to, of all tests."""
    gc.collect()
    return [node for node in gc.get_objects() if isinstance(node, _Node)]


@pytest.fixture
def generations_held() -> Callable[[], set[int]]:
    """Generations of those that this test made."""
    others = held()  # and not their ids, which may be given away again
    return lambda: {node.value.generation for node in held() if node not in others}


def is_ready(readiness: Readiness) -> bool:
    return readiness.ready


# -- what is said of a state -------------------------------------------------------------------------------


def test_ready_and_warm() -> None:
    """A ready state becomes a ready snapshot with the warmup's figures, rounded."""
    warmup = Warmup(Outcome.SUCCEEDED, 1.23456, (PREFIX,))
    state = State(phase=Phase.READY, wanted=True, generation=3, alive=True, warm=True, warmup=warmup)

    assert describe(state, 1700.5, None) == Readiness(
        ready=True,
        phase="ready",
        warm=True,
        reason=None,
        generation=3,
        since=1700.5,
        warmup=WarmupStatus(outcome="succeeded", seconds=1.235, prefixes=(PrefixStatus.of(PREFIX),)),
    )


@pytest.mark.parametrize("phase", Phase)
def test_only_ready_is_ready(phase: Phase) -> None:
    """Every phase is described under its name, and only `ready` is ready."""
    readiness = describe(State(phase=phase, wanted=True, reason="because"), 1.0, None)

    assert (readiness.phase, readiness.reason) == (phase.value, "because")
    assert readiness.ready is (phase is Phase.READY)


@pytest.mark.parametrize("phase", Phase)
def test_expected_unless_it_needs_a_person(phase: Phase) -> None:
    """While wanted, every phase but down and failed leads to ready by itself; else only ready does."""
    wanted = describe(State(phase=phase, wanted=True), 1.0, None)
    unwanted = describe(State(phase=phase, wanted=False), 1.0, None)

    assert wanted.expected is (phase not in {Phase.DOWN, Phase.FAILED})
    assert unwanted.expected is (phase is Phase.READY)


def test_doomed_worker_is_not_ready() -> None:
    """A worker whose connection broke is not ready although it is not reaped yet; but it is going to be replaced."""
    state = State(phase=Phase.READY, wanted=True, alive=True, warm=True, doom="the worker closed its connection")

    readiness = describe(state, 1.0, None)

    assert (readiness.ready, readiness.reason) == (False, "the worker closed its connection")
    assert readiness.expected


def test_progress_is_shown() -> None:
    """What the worker is busy with is part of the snapshot."""
    progress = ProgressStatus(stage="load", done=1, total=4)

    assert describe(State(phase=Phase.LOADING), 1.0, progress).progress == progress


def test_before_the_first_event_waiting_is_worthwhile() -> None:
    """Whoever asks before anything happened is told to wait."""
    assert not NOTHING_YET.ready
    assert NOTHING_YET.expected


# -- publishing --------------------------------------------------------------------------------------------


async def test_current_is_the_newest() -> None:
    """Publishing replaces the current snapshot."""
    board = Board(NOTHING_YET)
    board.publish(snapshot(1))

    assert board.current == snapshot(1)


async def test_listener_is_called_after_each_publishing() -> None:
    """A listener finds the new snapshot in place, and is called for the same again: deaths need not show in it."""
    board = Board(snapshot(0))
    heard: list[int] = []
    board.listen(lambda: heard.append(board.current.generation))
    for generation in (1, 1, 2):
        board.publish(snapshot(generation))

    assert heard == [1, 1, 2]


async def test_slow_reader_misses_nothing() -> None:
    """A watcher that reads only after many transitions still sees each of them, in order."""
    board = Board(snapshot(0))
    watch = board.watch()

    for generation in range(1, 500):
        board.publish(snapshot(generation))

    assert [(await anext(watch)).generation for _ in range(500)] == list(range(500))


async def test_thousand_watchers_see_every_transition() -> None:
    """A thousand watchers see each transition, whether it comes slowly or in bursts."""
    board = Board(snapshot(0))
    seen: list[list[int]] = []

    async def follow() -> None:
        mine: list[int] = []
        seen.append(mine)
        async for readiness in board.watch():
            mine.append(readiness.generation)
            if readiness.generation == 20:
                return

    async with anyio.create_task_group() as tasks:
        for _ in range(1000):
            tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        for generation in range(1, 21):
            board.publish(snapshot(generation))
            if generation % 5 == 0:
                await anyio.wait_all_tasks_blocked()

    assert seen == [list(range(21))] * 1000


async def test_the_same_again_wakes_nobody() -> None:
    """A snapshot equal to the current one is no transition."""
    board = Board(snapshot(1), clock=lambda: 0.0)
    board.publish(snapshot(2), retry_at=9.0)
    watch = board.watch()
    await anext(watch)

    board.publish(snapshot(2), retry_at=9.0)

    with anyio.move_on_after(1000) as waited:
        await anext(watch)
    assert waited.cancelled_caught


async def test_another_retry_is_a_transition() -> None:
    """The same words with another time of retry are news."""
    board = Board(snapshot(1), clock=lambda: 0.0)
    watch = board.watch()
    await anext(watch)

    board.publish(snapshot(1), retry_at=9.0)

    assert (await anext(watch)).retry_after == 9.0


async def test_watcher_can_pause_its_wait() -> None:
    """A wait for the next snapshot that was cancelled loses none: the next look finds it."""
    board = Board(snapshot(0))
    watch = board.watch()
    await anext(watch)
    with anyio.move_on_after(5):
        await anext(watch)

    board.publish(snapshot(1))
    board.publish(snapshot(2))

    assert [(await anext(watch)).generation for _ in range(2)] == [1, 2]


async def test_nothing_is_kept_for_who_left(generations_held: Callable[[], set[int]]) -> None:
    """Old snapshots are freed once no watcher can ask for them any more."""
    board = Board(snapshot(0))
    watches = [board.watch() for _ in range(3)]
    for generation in range(1, 100):
        board.publish(snapshot(generation))
    assert generations_held() == set(range(100)), "a watcher may still ask for them"

    del watches

    assert generations_held() == {99}


async def test_reader_that_advances_holds_only_what_follows(generations_held: Callable[[], set[int]]) -> None:
    """A watcher that keeps up holds no history."""
    board = Board(snapshot(0))
    watch = board.watch()
    await anext(watch)

    for generation in range(1, 10):
        board.publish(snapshot(generation))
        await anext(watch)

    assert generations_held() == {9}


# -- waiting -----------------------------------------------------------------------------------------------


async def test_wait_that_is_satisfied_takes_no_time() -> None:
    """If the current snapshot satisfies, even a wait of no time at all returns it."""
    board = Board(snapshot(1))

    assert await board.wait(is_ready, timeout=0) == snapshot(1)
    assert await board.wait(is_ready, timeout=-1) == snapshot(1)


async def test_wait_returns_what_satisfied() -> None:
    """The wait returns the snapshot that satisfied, even if it was superseded at once."""
    board = Board(snapshot(1, Phase.WARMING))

    async def pass_by() -> None:
        await anyio.sleep(3)
        board.publish(snapshot(1))
        board.publish(snapshot(1, Phase.STOPPING))

    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pass_by)
        readiness = await board.wait(is_ready, timeout=10)

    assert readiness == snapshot(1)
    assert anyio.current_time() - began == pytest.approx(3)


async def test_wait_ends_with_its_timeout() -> None:
    """After its timeout, to the second, the wait returns what is current then."""
    board = Board(snapshot(1, Phase.LOADING))

    async def warm_up() -> None:
        await anyio.sleep(4)
        board.publish(snapshot(1, Phase.WARMING))

    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(warm_up)
        readiness = await board.wait(is_ready, timeout=60)

    assert readiness.phase == "warming"
    assert anyio.current_time() - began == pytest.approx(60)


# -- when it will be tried again ---------------------------------------------------------------------------


async def test_retry_after_counts_down() -> None:
    """`retry_after` is measured when it is read, and is never negative."""
    now = 100.0
    board = Board(NOTHING_YET, clock=lambda: now)
    board.publish(snapshot(1, Phase.BACKOFF), retry_at=108.04)
    watch = board.watch()

    assert board.current.retry_after == 8.0
    now = 105.0
    assert board.current.retry_after == 3.0
    assert (await anext(watch)).retry_after == 3.0
    now = 200.0
    assert board.current.retry_after == 0.0


async def test_no_retry_is_planned() -> None:
    """Without a planned retry there is nothing to count down."""
    board = Board(NOTHING_YET)
    board.publish(snapshot(1, Phase.BACKOFF), retry_at=anyio.current_time() + 5)
    board.publish(snapshot(1, Phase.STARTING))

    assert board.current.retry_after is None
