"""A generation's life with a real process: the fake worker, in its good course and with each of its faults."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import anyio
import psutil
import pytest
from anyio.abc import TaskGroup

from stoker.daemon import life as life_module
from stoker.daemon.life import LINK_GRACE, Launch, WorkerLife
from stoker.daemon.lifecycle import (
    Drained,
    Event,
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
from stoker.daemon.link import WorkerLink, WorkerLost
from stoker.ipc.messages import ErrorCode, Finished, Progress, WarmPrefix
from stoker.ipc.peer import Peer
from tests.fakes.fake_daemon import GENERATE, LOAD
from tests.fakes.fake_scenario import COMMAND

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_children")]

DEADLINE = 30.0
"""Seconds after which a wait in these tests has failed; none takes a tenth of it."""

SYSTEM = WarmPrefix(name="system", system="you are a kind and patient machine")
AGENT = WarmPrefix(name="agent", system="you are an agent of " + "many words " * 200)

E = TypeVar("E", bound=Event)


@dataclass
class Alive:
    """A life that is being lived, and its diary."""

    tasks: TaskGroup
    events: list[Event] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    news: anyio.Event = field(default_factory=anyio.Event)
    life: WorkerLife = field(init=False)

    def post(self, event: Event) -> None:
        self.events.append(event)
        self._tell()

    def on_progress(self, progress: Progress) -> None:
        self.progress.append(progress)
        self._tell()

    def sink(self, line: str) -> None:
        self.lines.append(line)
        self._tell()

    def _tell(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    @property
    def link(self) -> WorkerLink:
        assert self.life.link is not None
        return self.life.link

    def grandchild(self) -> int:
        return int(next(line for line in self.lines if line.startswith("grandchild ")).split()[1])

    async def when(self, condition: Callable[[], Any]) -> None:
        with anyio.fail_after(DEADLINE):
            while not condition():
                await self.news.wait()

    async def until(self, kind: type[E]) -> E:
        """The first event of a kind; takes it out of the diary."""
        await self.when(lambda: any(isinstance(event, kind) for event in self.events))
        event = next(event for event in self.events if isinstance(event, kind))
        self.events.remove(event)
        return event

    async def warm(self, *prefixes: WarmPrefix, ticket: int = 0) -> WarmupEnded:
        """Greet, and warm."""
        await self.until(Greeted)
        self.tasks.start_soon(self.life.warm, prefixes, ticket)
        return await self.until(WarmupEnded)

    async def end(self) -> str:
        """Kill it; the cause of its end."""
        self.life.kill()
        return (await self.until(Exited)).cause


Live: TypeAlias = Callable[..., AbstractAsyncContextManager[Alive]]
"""Begins a life under a scenario, with changes to its launch; its process is gone at the end of the block."""


@pytest.fixture
def live(short_dir: Path) -> Live:
    @asynccontextmanager
    async def begin(scenario: object = "", **changes: Any) -> AsyncIterator[Alive]:
        environ = {**os.environ, "FAKE_WORKER": scenario if isinstance(scenario, str) else json.dumps(scenario)}
        async with anyio.create_task_group() as tasks:
            alive = Alive(tasks)
            launch = Launch(
                command=COMMAND,
                environ=lambda generation: {**environ, "STOKER_GENERATION": str(generation)},
                socket_dir=short_dir,
                load=LOAD,
                prefixes=(SYSTEM,),
                sink=alive.sink,
            )
            alive.life = WorkerLife(5, replace(launch, **changes), alive.post, alive.on_progress)
            tasks.start_soon(alive.life.run)
            yield alive
            tasks.cancel_scope.cancel()
        assert alive.life.pid is None or not psutil.pid_exists(alive.life.pid)

    return begin


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def fault(at: str, do: str, **more: object) -> dict[str, object]:
    return {"faults": [{"at": at, "do": do, **more}]}


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


# -- workers that don't get far ----------------------------------------------------------------------------


async def test_exit_before_hello(live: Live) -> None:
    """A worker that ends before its hello is told by its exit alone, without delay, with its last words."""
    async with live(fault("start", "exit", code=3)) as alive:
        assert (await alive.until(Exited)).cause == "exited with code 3"

    assert alive.events == []
    assert alive.life.last_words == ("fault: exit at start 0",)
    assert alive.lines == ["fault: exit at start 0"]


async def test_exit_before_connecting(live: Live) -> None:
    """A program that never connects at all is told by its exit as soon as it ends."""
    async with live(command=("/bin/sh", "-c", "echo no such module >&2; exit 1")) as alive:
        began = anyio.current_time()
        assert (await alive.until(Exited)).cause == "exited with code 1"

    assert anyio.current_time() - began < LINK_GRACE
    assert alive.life.last_words == ("no such module",)


async def test_mute_worker(live: Live) -> None:
    """A worker that says nothing causes no event at all, and can be killed."""
    async with live(fault("start", "hang")) as alive:
        await alive.when(lambda: alive.lines)
        assert alive.events == []

        assert await alive.end() == "ended by SIGKILL, as asked"


async def test_program_that_is_missing(live: Live, short_dir: Path) -> None:
    """A worker that can't be started is an exit with the system's reason."""
    async with live(command=("/nowhere/python",)) as alive:
        cause = (await alive.until(Exited)).cause

    assert cause.startswith("could not be started: ")
    assert "No such file" in cause
    assert alive.life.last_words == ()
    assert names_in(short_dir) == []


async def test_socket_that_can_not_be_made(live: Live, short_dir: Path) -> None:
    """A worker whose socket can't be made is an exit, too, and not the daemon's end."""
    async with live(socket_dir=short_dir / "missing") as alive:
        assert "could not be started: cannot listen on" in (await alive.until(Exited)).cause


async def test_killed_while_being_spawned(live: Live) -> None:
    """An order to end that comes before the process exists is its first one."""
    async with live() as alive:
        alive.life.kill()
        assert (await alive.until(Exited)).cause == "ended by SIGKILL, as asked"

    assert alive.events == []


async def test_other_protocol_version(live: Live) -> None:
    """A worker of another version is told by its version, although it ends by itself when refused."""
    async with live({"hello": {"protocol": 99}}) as alive:
        lost = await alive.until(LinkLost)
        assert lost.why == "the daemon speaks protocol 1, the worker 99; install the same version of both"
        assert (await alive.until(Exited)).cause == "exited with code 78"

    assert "fatal: refused by the daemon" in alive.life.last_words[-1]


async def test_stranger_at_the_socket(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection from another user is closed without a word."""
    monkeypatch.setattr(life_module, "peer", lambda _: Peer(os.geteuid() + 1, None))
    async with live() as alive:
        assert (await alive.until(Exited)).cause == "exited with code 0"

    assert alive.events == []


async def test_no_descriptors_left(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the connection can't be accepted, that is this life's trouble, and not the daemon's end."""

    async def fail(_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(life_module, "accept_unix", fail)
    async with live(fault("hello", "hang")) as alive:
        assert "could not be accepted: [Errno 24]" in (await alive.until(LinkLost)).why
        await alive.end()


# -- workers that misbehave --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("misdeed", "why"),
    [
        ({"do": "garbage"}, "broke the protocol: not a line of UTF-8 JSON"),
        ({"do": "oversize"}, "broke the protocol: a message is longer than 16777216 bytes"),
        ({"do": "raw", "text": "[]\n"}, "batch requests are not supported"),
        ({"do": "close"}, "the worker closed its connection"),
    ],
    ids=lambda value: value.get("do") if isinstance(value, dict) else "",
)
async def test_breach_of_the_protocol(live: Live, misdeed: dict[str, str], why: str) -> None:
    """A worker that breaks the protocol, or hangs up, and lives on is told by its lost link."""
    async with live({"ignore_eof": True, **fault("welcome", **misdeed)}) as alive:
        await alive.until(Greeted)
        assert why in (await alive.until(LinkLost)).why
        assert alive.link.lost
        assert await alive.end() == "ended by SIGKILL, as asked"


@pytest.mark.parametrize("first", [[], [{"at": "welcome", "do": "half_frame"}]], ids=["between", "inside"])
async def test_killed_from_elsewhere(live: Live, first: list[dict[str, str]]) -> None:
    """A worker that is killed is told by its exit alone, between two messages and inside one."""
    killed = {"at": "welcome", "do": "signal", "signal": int(signal.SIGKILL)}
    async with live({"faults": [*first, killed]}) as alive:
        assert "killed by SIGKILL, not by Stoker" in (await alive.until(Exited)).cause

    assert [type(event) for event in alive.events] == [Greeted]


async def test_half_a_message_and_silence(live: Live) -> None:
    """Half a message without an end neither hangs the life nor hinders its end."""
    async with live({"faults": [{"at": "welcome", "do": "half_frame"}, {"at": "welcome", "do": "hang"}]}) as alive:
        await alive.until(Greeted)
        assert await alive.end() == "ended by SIGKILL, as asked"


async def test_worker_that_ignores_term(live: Live) -> None:
    """A worker that doesn't hear TERM is ended by KILL."""
    async with live({"ignore_term": True}) as alive:
        await alive.until(Greeted)
        alive.life.terminate()
        with anyio.move_on_after(0.1):
            await alive.until(Exited)
            pytest.fail("it was not to hear TERM")

        assert await alive.end() == "ended by SIGKILL, as asked"


async def test_stopped_worker_hears_term(live: Live) -> None:
    """A worker that was stopped by a signal ends when asked."""
    async with live(fault("welcome", "signal", signal=int(signal.SIGSTOP))) as alive:
        await alive.until(Greeted)
        await alive.when(lambda: any("signal at welcome" in line for line in alive.lines))
        alive.life.terminate()

        assert (await alive.until(Exited)).cause in {"exited with code 0", "ended by SIGTERM, as asked"}


async def test_flood_on_stderr(live: Live) -> None:
    """A worker that floods its output is not held up by it."""
    async with live(fault("load", "stderr", count=4_000_000)) as alive:
        await alive.until(Greeted)
        alive.tasks.start_soon(alive.life.load)
        await alive.until(Loaded)

        assert sum(map(len, alive.lines)) > 3_900_000


async def test_flood_of_progress(live: Live) -> None:
    """A worker that floods the connection is read, and its answer comes through."""
    async with live(fault("load", "flood", count=5000)) as alive:
        await alive.until(Greeted)
        alive.tasks.start_soon(alive.life.load)
        await alive.until(Loaded)

        assert alive.progress[-1].done == 2


@pytest.mark.parametrize("setsid", [False, True], ids=["in its group", "escaped"])
async def test_grandchild_that_holds_everything(live: Live, setsid: bool) -> None:
    """A grandchild that holds the socket and the output delays the exit by the graces at most."""
    async with live({"faults": [{"at": "welcome", "do": "grandchild", "setsid": setsid}]}) as alive:
        await alive.until(Greeted)
        await alive.when(lambda: any(line.startswith("grandchild ") for line in alive.lines))
        child = alive.grandchild()
        began = anyio.current_time()
        os.kill(alive.life.pid or 0, signal.SIGKILL)
        try:
            assert "killed by SIGKILL" in (await alive.until(Exited)).cause
            assert anyio.current_time() - began < (2 + LINK_GRACE if setsid else 1)
        finally:
            if setsid:
                os.kill(child, signal.SIGKILL)

    assert alive.events == []


@pytest.mark.skipif(shutil.which("setsid") is None, reason="needs a program that makes a session")
async def test_holder_of_the_output_does_not_hide_the_cause(live: Live) -> None:
    """A grandchild that holds only the output delays the exit, but a killed worker is still told as killed."""
    script = 'setsid sleep 60 & echo "grandchild $!" >&2; exec "$@"'
    async with live(command=("/bin/sh", "-c", script, "sh", *COMMAND)) as alive:
        await alive.until(Greeted)
        os.kill(alive.life.pid or 0, signal.SIGKILL)
        assert "killed by SIGKILL, not by Stoker" in (await alive.until(Exited)).cause
        os.kill(alive.grandchild(), signal.SIGKILL)

    assert alive.events == []


async def test_open_requests_hear_of_the_end(live: Live) -> None:
    """Whoever waits for an answer when the worker dies is told, and so is whoever asks afterwards."""
    async with live(fault("generate", "exit", step=2)) as alive:
        await alive.until(Greeted)
        link = alive.link
        with pytest.raises(WorkerLost, match="the worker closed its connection"):
            await link.call(GENERATE, Finished)
        await alive.until(Exited)

        with pytest.raises(WorkerLost):
            await link.call(GENERATE, Finished)


async def test_holder_of_the_socket_keeps_no_request_waiting(live: Live) -> None:
    """Even if a grandchild keeps the connection open, requests end when the worker has."""
    faults = [{"at": "welcome", "do": "grandchild", "setsid": True}, {"at": "generate", "do": "exit"}]
    async with live({"faults": faults}) as alive:
        await alive.until(Greeted)
        link = alive.link
        with pytest.raises(WorkerLost, match="the worker exited with code 1"):
            await link.call(GENERATE, Finished)
        await alive.until(Exited)
        os.kill(alive.grandchild(), signal.SIGKILL)


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
    async with live({"warm": {"seconds": 1000}}) as alive:
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
