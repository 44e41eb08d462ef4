"""One connection with the daemon, around an engine that the test plays."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.abc
import anyio.to_thread
import pytest

from stoker.ipc.channel import Channel, ChannelClosed
from stoker.ipc.errors import ErrorCode
from stoker.ipc.framing import (
    Dialect,
    ErrorResponse,
    Frame,
    Malformed,
    Notification,
    Request,
    Response,
    UnexpectedFrame,
)
from stoker.ipc.messages import (
    PROTOCOL_VERSION,
    CacheClear,
    CacheList,
    CacheVerify,
    Cancel,
    CountTokens,
    Finished,
    Forget,
    Generate,
    Hello,
    Id,
    Job,
    Load,
    Measure,
    Pin,
    Prefixes,
    Progress,
    Statistics,
    Step,
    TextPrompt,
    Usage,
    Warm,
    Welcome,
    WorkerResult,
)
from stoker.worker import session
from stoker.worker.engine import JOBS, Emit
from stoker.worker.session import DIALECT, Session, Unwelcome, introduce

pytestmark = pytest.mark.anyio

DAEMON = Dialect(requests=(Hello,), notifications=(Progress, Step), results=WorkerResult)
ASK = Generate(prompt=TextPrompt(text="hello"))
DONE = Finished(reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=0, cached_tokens=0))


@dataclass
class PlayedEngine:
    """Remembers what it was told; the test emits in its stead."""

    emit: Emit
    submitted: list[tuple[Id, Job]] = field(default_factory=list)
    cancelled: list[Id] = field(default_factory=list)
    closed: bool = False
    news: anyio.Event = field(default_factory=anyio.Event)

    def submit(self, request_id: Id, body: Job) -> None:
        self.submitted.append((request_id, body))
        self._tell()

    def cancel(self, target: Id) -> None:
        self.cancelled.append(target)
        self._tell()

    def close(self) -> None:
        self.closed = True

    def _tell(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    async def until(self, done: Callable[[], bool]) -> None:
        with anyio.fail_after(10):
            while not done():
                await self.news.wait()

    async def emits(self, *frames: Frame) -> None:
        """Emit from another thread, as an engine does."""

        def emit() -> None:
            for frame in frames:
                self.emit(frame)

        await anyio.to_thread.run_sync(emit)


@dataclass
class Line:
    """A session, the engine behind it, and the daemon's end of the connection."""

    engine: PlayedEngine
    daemon: Channel
    raw: anyio.abc.SocketStream
    tasks: anyio.abc.TaskGroup


async def ends() -> tuple[Channel, anyio.abc.SocketStream]:
    mine, other = socket.socketpair()
    near = await anyio.abc.SocketStream.from_socket(mine)
    return Channel(near, DIALECT), await anyio.abc.SocketStream.from_socket(other)


@asynccontextmanager
async def serving() -> AsyncIterator[Line]:
    near, far = await ends()
    engines: list[PlayedEngine] = []

    def engine(emit: Emit) -> PlayedEngine:
        engines.append(PlayedEngine(emit))
        return engines[0]

    worker = Session(near, engine)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.serve)
            yield Line(engines[0], Channel(far, DAEMON), far, tasks)
            await far.aclose()
    await near.aclose()
    assert engines[0].closed


# -- hello -------------------------------------------------------------------------------------------------


async def answer_hello(far: anyio.abc.SocketStream, answer: Frame) -> Frame | Malformed:
    daemon = Channel(far, DAEMON)
    hello = await daemon.receive()
    await daemon.send(answer)
    return hello


async def test_hello_is_answered_by_welcome() -> None:
    """The worker says who it is first, and takes the daemon's welcome."""
    near, far = await ends()
    heard: list[Frame | Malformed] = []
    async with anyio.create_task_group() as tasks:

        async def daemon() -> None:
            heard.append(await answer_hello(far, Response(0, Welcome(protocol=PROTOCOL_VERSION, generation=3))))

        tasks.start_soon(daemon)

        assert (await introduce(near)).generation == 3
    assert isinstance(heard[0], Request)
    assert isinstance(heard[0].body, Hello)
    assert (heard[0].body.protocol, heard[0].body.pid) == (PROTOCOL_VERSION, os.getpid())
    await near.aclose()
    await far.aclose()


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        (ErrorResponse(0, ErrorCode.UNSUPPORTED_PROTOCOL, "I speak version 9"), Unwelcome),
        (Response(0, Welcome(protocol=9, generation=1)), Unwelcome),
        (Request(1, Statistics()), UnexpectedFrame),
    ],
    ids=["refused", "other version", "no answer"],
)
async def test_worker_that_is_not_welcome(answer: Frame, raised: type[Exception]) -> None:
    """A refusal or another protocol version ends the worker for good; another first message is a broken protocol."""
    near, far = await ends()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer_hello, far, answer)
        with pytest.raises(raised):
            await introduce(near)
    await near.aclose()
    await far.aclose()


async def test_silent_daemon_is_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hello has a deadline."""
    monkeypatch.setattr(session, "HELLO_SECONDS", 0.01)
    near, far = await ends()
    with pytest.raises(TimeoutError):
        await introduce(near)
    await near.aclose()
    await far.aclose()


# -- requests ----------------------------------------------------------------------------------------------


async def test_requests_reach_the_engine_and_answers_the_daemon() -> None:
    """A request goes to the engine under its id, and what the engine emits comes back in order."""
    async with serving() as line:
        await line.daemon.send(Request(5, ASK))
        await line.engine.until(lambda: bool(line.engine.submitted))
        progress = Progress(target=5, stage="prefill", done=1, total=1)
        await line.engine.emits(Notification(progress), Response(5, DONE))

        assert line.engine.submitted == [(5, ASK)]
        assert await line.daemon.receive() == Notification(progress)
        assert await line.daemon.receive() == Response(5, DONE)


JOB_EXAMPLES: tuple[Job, ...] = (
    Load(model="embedded", cache_dir="/nowhere"),
    Warm(prefixes=()),
    ASK,
    CountTokens(prompt=TextPrompt(text="How many?")),
    Statistics(),
    Prefixes(),
    Pin(name="learned-00000000"),
    Forget(),
    CacheList(),
    CacheVerify(),
    CacheClear(),
    Measure(),
)


async def test_every_kind_of_request_reaches_the_engine() -> None:
    """There is no request that the protocol knows and the session swallows."""
    async with serving() as line:
        for number, body in enumerate(JOB_EXAMPLES):
            await line.daemon.send(Request(number, body))
        await line.engine.until(lambda: len(line.engine.submitted) == len(JOBS))

        assert [body for _, body in line.engine.submitted] == list(JOB_EXAMPLES)
        assert {type(body) for body in JOB_EXAMPLES} == set(JOBS)


async def test_id_in_use_is_refused() -> None:
    """A second request under an open id is refused; after the answer the id is free again."""
    async with serving() as line:
        await line.daemon.send(Request(5, ASK))
        await line.daemon.send(Request(5, ASK))
        refusal = await line.daemon.receive()
        await line.engine.emits(Response(5, DONE))
        await line.daemon.receive()
        await line.daemon.send(Request(5, ASK))
        await line.engine.until(lambda: len(line.engine.submitted) == 2)

        assert isinstance(refusal, ErrorResponse)
        assert (refusal.id, refusal.code) == (5, ErrorCode.INVALID_REQUEST)


async def test_open_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit of open requests, one more is refused as retryable."""
    monkeypatch.setattr(session, "MOST_OPEN", 1)
    async with serving() as line:
        await line.daemon.send(Request(1, ASK))
        await line.daemon.send(Request(2, ASK))
        refusal = await line.daemon.receive()

        assert isinstance(refusal, ErrorResponse)
        assert refusal.id == 2
        assert refusal.data.retryable


async def test_cancel_goes_through_once() -> None:
    """A cancel reaches the engine once for an open request, and not at all for an unknown one."""
    async with serving() as line:
        await line.daemon.send(Notification(Cancel(target=9)))
        await line.daemon.send(Request(5, ASK))
        for _ in range(3):
            await line.daemon.send(Notification(Cancel(target=5)))
        await line.daemon.send(Request(6, ASK))
        await line.engine.until(lambda: len(line.engine.submitted) == 2)

        assert line.engine.cancelled == [5]


async def test_nonsense_is_answered_and_survived() -> None:
    """What can't be understood is answered by its error, and the next request is served."""
    async with serving() as line:
        await line.raw.send(b'{"jsonrpc":"2.0","id":4,"method":"fly"}\n')
        answer = await line.daemon.receive()
        await line.daemon.send(Request(5, ASK))
        await line.engine.until(lambda: bool(line.engine.submitted))

        assert isinstance(answer, ErrorResponse)
        assert (answer.id, answer.code) == (4, ErrorCode.METHOD_NOT_FOUND)


async def test_stray_answer_is_ignored() -> None:
    """An answer to nothing harms nothing."""
    async with serving() as line:
        await line.daemon.send(Response(77, Welcome(protocol=1, generation=1)))
        await line.daemon.send(Request(5, ASK))
        await line.engine.until(lambda: bool(line.engine.submitted))


async def test_engine_waits_for_a_daemon_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the daemon lags, the engine's thread is held up instead of memory being filled."""
    monkeypatch.setattr(session, "MOST_UNSENT", 4)
    flood = [Notification(Progress(target=1, stage="warm", done=0, total=1, name="x" * 500_000)) for _ in range(40)]
    emitted = 0
    async with serving() as line:

        def emit() -> None:
            nonlocal emitted
            for frame in flood:
                line.engine.emit(frame)
                emitted += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, emit)
            first = await line.daemon.receive()
            held_up_at = emitted
            rest = [await line.daemon.receive() for _ in flood[1:]]

    assert held_up_at < len(flood)
    assert [first, *rest] == flood


@pytest.mark.parametrize("farewell", [b"", b'{"jsonrpc":"2.0","id'], ids=["between lines", "inside a line"])
async def test_daemon_that_leaves_ends_the_session(farewell: bytes) -> None:
    """When the connection ends, wherever, serving ends and the engine is closed."""
    async with serving() as line:
        if farewell:
            await line.raw.send(farewell)


async def test_daemon_that_leaves_while_the_engine_talks() -> None:
    """A connection that breaks under an answer ends the session like any other."""
    async with serving() as line:
        await line.raw.aclose()
        await line.engine.emits(*(Notification(Progress(target=1, stage="warm", done=0, total=1)) for _ in range(9)))


async def test_daemon_that_refuses_to_listen_is_noticed_at_hello() -> None:
    """A daemon gone before its welcome is a closed connection."""
    near, far = await ends()
    await far.aclose()

    with pytest.raises(ChannelClosed):
        await introduce(near)
