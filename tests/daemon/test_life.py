"""A generation's life with a real process: the fake worker, in its good course, and how it ends."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from stoker.daemon.lifecycle import (
    Drained,
    Exited,
    Greeted,
    LinkLost,
    LoadAdvanced,
    Loaded,
    LoadFailed,
    Outcome,
    WarmupEnded,
    WorkerEvent,
)
from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import Finished
from tests.fakes.fake_daemon import GENERATE, fault
from tests.fakes.living import AGENT, SYSTEM, Live, names_in

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_children")]


# -- the good course ---------------------------------------------------------------------------------------


async def test_whole_life(live: Live, short_dir: Path) -> None:
    """Hello, load with progress, warmup with progress, an answer, drain, TERM, exit: each told, the exit last."""
    async with live() as alive:
        life = alive.life
        assert (await alive.until(Greeted)).generation == 5
        assert names_in(short_dir) == ["worker-5.sock"]
        await life.load()
        assert life.loaded is not None
        assert life.loaded.model == "tiny"
        await life.warm((), 0)
        warmed = await alive.until(WarmupEnded)
        assert (warmed.outcome, warmed.ticket, warmed.reason) == (Outcome.SUCCEEDED, 0, None)
        assert [(prefix.name, prefix.tokens_warm) for prefix in warmed.prefixes] == [("system", 7)]
        assert (await alive.link.call(GENERATE, Finished)).reason == "length"
        await life.drain()
        life.terminate()
        assert (await alive.until(Exited)).cause == "exited with code 0"

    assert [type(event) for event in alive.events if not isinstance(event, LoadAdvanced)] == [Loaded, Drained]
    assert isinstance(alive.events[0], LoadAdvanced)
    newest = {step.stage: step.done for step in alive.progress}  # of unread progress only the newest is kept
    assert newest == {"load": 2, "warm": 7}
    assert names_in(short_dir) == []


async def test_pid_is_the_workers(live: Live) -> None:
    """The life knows its process's id."""
    async with live() as alive:
        await alive.until(Greeted)

        assert psutil.Process(alive.life.pid).ppid() == os.getpid()


async def test_given_prefixes_are_warmed_instead(live: Live) -> None:
    """A rewarm with prefixes warms these, and carries its ticket."""
    async with live() as alive:
        warmed = await alive.warm(AGENT, SYSTEM, ticket=9)

        assert warmed.ticket == 9
        assert [prefix.name for prefix in warmed.prefixes] == ["agent", "system"]


async def test_exit_is_unique(live: Live) -> None:
    """A life ends in one exit, however many times it is told to end."""
    async with live() as alive:
        await alive.until(Greeted)
        for _ in range(3):
            alive.life.terminate()
            alive.life.kill()
        await alive.until(Exited)

    assert alive.events == []


# -- load and warmup ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "fatal"),
    [(ErrorCode.MODEL_UNUSABLE, True), (ErrorCode.INTERNAL_ERROR, False), (ErrorCode.INSUFFICIENT_MEMORY, False)],
)
async def test_refused_load(live: Live, code: ErrorCode, fatal: bool) -> None:
    """A load that the worker refuses is told with its words and remedy, and whether another try is in vain."""
    error = {"code": int(code), "message": "no such model.", "remedy": "Configure another."}
    async with live({"load": {"error": error}}) as alive:
        await alive.until(Greeted)
        await alive.life.load()

        assert await alive.until(LoadFailed) == LoadFailed(5, "no such model. Configure another.", fatal=fatal)
        assert alive.life.loaded is None


@pytest.mark.parametrize("at", ["load", "warm"])
async def test_death_at_work(live: Live, at: str) -> None:
    """A worker that dies over load or warmup answers nothing; its exit is the only news."""
    async with live(fault(at, "exit", code=70)) as alive:
        await alive.until(Greeted)
        await (alive.life.load() if at == "load" else alive.life.warm((), 0))
        assert (await alive.until(Exited)).cause == "exited with code 70"

    assert not any(isinstance(event, Loaded | LoadFailed | WarmupEnded | LinkLost) for event in alive.events)


async def test_abandoned_warmup_reports_what_it_has(live: Live) -> None:
    """A warmup that is given up ends with the worker's report of the part that is warm."""
    async with live({"warm": {"seconds": 20, "steps": 200}}) as alive:
        await alive.until(Greeted)
        alive.tasks.start_soon(alive.life.warm, (AGENT,), 0)
        await alive.when(lambda: any(step.done for step in alive.progress))
        await alive.life.abandon_warmup()
        warmed = await alive.until(WarmupEnded)

        [prefix] = warmed.prefixes
        assert warmed.outcome is Outcome.ABANDONED
        assert 0 < prefix.tokens_warm < prefix.tokens


async def test_abandoning_reaches_every_open_warmup(live: Live) -> None:
    """If an abandoned warmup is still unanswered when the next one begins, both can be given up."""
    async with live({"warm": {"seconds": 20, "steps": 200}}) as alive:
        await alive.until(Greeted)
        for ticket in (1, 2):
            alive.tasks.start_soon(alive.life.warm, (), ticket)
        await alive.when(lambda: len(alive.life._warming) == 2)
        await alive.life.abandon_warmup()

        assert {(await alive.until(WarmupEnded)).ticket for _ in range(2)} == {1, 2}
        assert alive.life._warming == set()


async def test_abandoning_nothing(live: Live) -> None:
    """Giving up a warmup that doesn't run is no trouble, at any time of the life."""
    async with live() as alive:
        await alive.life.abandon_warmup()
        await alive.warm()
        await alive.life.abandon_warmup()


async def test_refused_warmup(live: Live) -> None:
    """A warmup that the worker refuses has failed, with the worker's words."""
    async with live({"warm": {"error": {"code": -32603, "message": "no tokenizer"}}}) as alive:
        warmed = await alive.warm(ticket=3)

        assert (warmed.outcome, warmed.reason, warmed.ticket) == (Outcome.FAILED, "no tokenizer", 3)


async def test_failed_warmup_gives_its_reason(live: Live) -> None:
    """A warmup that the worker itself reports as failed keeps the worker's reason."""
    async with live({"warm": {"outcome": "failed", "reason": "template"}}) as alive:
        warmed = await alive.warm()

        assert (warmed.outcome, warmed.reason) == (Outcome.FAILED, "template")


async def test_drain_waits_for_running_requests(live: Live) -> None:
    """`Drained` is said when the last request has ended, not before."""
    async with live({"generate": {"tokens_per_second": 100}}) as alive:
        await alive.until(Greeted)
        link = alive.link
        async with link.ask(GENERATE) as (_, mailbox):
            alive.tasks.start_soon(alive.life.drain)
            while not isinstance(await mailbox.get(), Finished):
                assert alive.events == []
        await alive.until(Drained)


async def test_orders_before_the_connection(live: Live) -> None:
    """Load, warm and drain before a connection exists are answered by nothing but `Drained`."""
    async with live(fault("start", "hang")) as alive:
        await alive.life.load()
        await alive.life.warm((), 0)
        await alive.life.drain()

        assert alive.events == [Drained(5)]


# -- cancellation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param({}, id="well-behaved"),
        pytest.param({"ignore_term": True, "ignore_eof": True, **fault("hello", "hang")}, id="stubborn"),
        pytest.param(fault("welcome", "grandchild"), id="with a grandchild"),
    ],
)
async def test_cancelled_life_leaves_nothing(live: Live, scenario: dict[str, object], short_dir: Path) -> None:
    """A life that is cancelled in any situation kills and reaps its process, and takes its socket away."""
    async with live(scenario) as alive:
        await alive.when(lambda: alive.lines or alive.events)

    assert alive.life.pid is not None
    assert not psutil.pid_exists(alive.life.pid)
    assert (await alive.until(Exited)).cause == "was given up by the daemon"
    assert names_in(short_dir) == []


async def test_cancelled_at_birth(live: Live) -> None:
    """A life that is cancelled while its process is being spawned leaves nothing either."""
    async with live() as alive:
        pass

    assert [type(event) for event in alive.events] in ([], [Exited])


async def test_every_event_names_its_generation(live: Live) -> None:
    """All news carry the life's generation."""
    async with live() as alive:
        await alive.until(Greeted)
        await alive.life.load()
        await alive.life.warm((), 0)
        alive.life.terminate()
        await alive.when(lambda: any(isinstance(event, Exited) for event in alive.events))

    assert {event.generation for event in alive.events if isinstance(event, WorkerEvent)} == {5}
