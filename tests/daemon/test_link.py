"""The daemon's end of a worker's connection, with a scripted worker at the other end, in virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from stoker.daemon.link import ProtocolBroken, WorkerLost
from stoker.ipc.errors import ErrorCode
from stoker.ipc.framing import ErrorResponse, Response
from stoker.ipc.messages import (
    Body,
    CacheClear,
    CacheList,
    CacheVerify,
    Cleared,
    Delta,
    Forget,
    Loaded,
    Noted,
    Pin,
    Prefixes,
    PrefixList,
    PrefixReport,
    Progress,
    Proven,
    ProvenPrefix,
    Result,
    StoredList,
    TokenLogprob,
    ToolCall,
    WarmedLater,
    Welcome,
)
from tests.fakes.fake_peer import FINISHED, GENERATE, LOAD, LOADED, joined, linked, settled

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


# -- handshake ---------------------------------------------------------------------------------------------


async def test_handshake() -> None:
    """A hello in our protocol is answered with a welcome that tells the worker its generation."""
    async with joined(generation=7) as (link, peer):
        await peer.hello()
        hello = await link.greet()

        assert hello.pid == 1
        assert await peer.heard() == Response(0, Welcome(protocol=1, generation=7))


async def test_other_protocol_version_is_refused() -> None:
    """A worker of another protocol version is told why it is refused, and so is the daemon."""
    async with joined() as (link, peer):
        await peer.hello(protocol=99)
        with pytest.raises(ProtocolBroken, match=r"protocol 1, the worker 99; install the same version"):
            await link.greet()

        frame = await peer.heard()
        assert isinstance(frame, ErrorResponse)
        assert frame.code == ErrorCode.UNSUPPORTED_PROTOCOL


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"\xff\xfe{{{\n", id="garbage"),
        pytest.param(b'{"jsonrpc":"2.0","id":0,"method":"hello","params":{"pid":"seven"}}\n', id="wrong types"),
        pytest.param(b'{"jsonrpc":"2.0","method":"step","params":{"deltas":[]}}\n', id="a step"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"result":{"kind":"finished"}}\n', id="an answer"),
    ],
)
async def test_first_message_must_be_a_hello(first: bytes) -> None:
    """Whatever else comes first, well-formed or not, is the end of this worker."""
    async with joined() as (link, peer):
        await peer.stream.send(first)

        with pytest.raises(ProtocolBroken, match="first message was not a hello"):
            await link.greet()


@pytest.mark.parametrize("part", [b"", b'{"jsonrpc":"2.0","id":0,"meth'], ids=["at once", "inside a line"])
async def test_end_before_hello(part: bytes) -> None:
    """A connection that ends before the hello, or inside it, is a lost worker, not a hang."""
    async with joined() as (link, peer):
        if part:
            await peer.stream.send(part)
        await peer.die()

        with pytest.raises(WorkerLost, match="closed its connection before hello"):
            await link.greet()


async def test_worker_that_leaves_during_the_handshake() -> None:
    """A worker that says hello and is gone before the welcome is lost."""
    async with joined() as (link, peer):
        await peer.hello()
        await peer.die()

        with pytest.raises(WorkerLost, match="during the handshake"):
            await link.greet()


# -- requests ----------------------------------------------------------------------------------------------


async def test_call_is_answered() -> None:
    """A call sends the request and returns its result; progress on the way is handed on."""
    seen: list[Progress] = []
    results: list[Loaded] = []
    async with linked() as (link, peer), anyio.create_task_group() as tasks:

        async def call() -> None:
            results.append(await link.call(LOAD, Loaded, seen.append))

        tasks.start_soon(call)
        request_id, body = await peer.asked()
        await peer.progress(request_id, 1, 2, stage="load")
        await settled()
        await peer.answer(request_id, LOADED)

    assert body == LOAD
    assert [progress.done for progress in seen] == [1]
    assert results == [LOADED]


async def test_call_without_interest_in_progress() -> None:
    """Progress that nobody asked for does not disturb a call."""
    async with linked() as (link, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(link.call, LOAD, Loaded)
        request_id, _ = await peer.asked()
        await peer.progress(request_id, 1, 2, stage="load")
        await peer.answer(request_id, LOADED)


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (Prefixes(), PrefixList(prefixes=(), notes=("put aside",))),
        (Pin(name="learned-1", pinned=False), Noted(count=1)),
        (Forget(), Noted(count=0)),
        (CacheList(), StoredList(folder="/c", prefixes=(), bytes=0, budget_bytes=1)),
        (CacheVerify(key="1a"), Proven(prefixes=(ProvenPrefix(key="1a", name=None, bytes=1),))),
        (CacheClear(foreign=True), Cleared(count=1, bytes=2)),
    ],
)
async def test_what_is_known_of_prefixes_is_asked_and_answered(body: Body, result: Result) -> None:
    """Listing, pinning and forgetting each have their one kind of answer."""
    results: list[Result] = []
    async with linked() as (link, peer), anyio.create_task_group() as tasks:

        async def call() -> None:
            results.append(await link.call(body, type(result)))

        tasks.start_soon(call)
        request_id, asked = await peer.asked()
        await peer.answer(request_id, result)

    assert asked == body
    assert results == [result]


async def test_many_generations_at_once() -> None:
    """Deltas of one step go each to its own request, and each request ends by itself."""
    async with (
        linked() as (link, peer),
        link.ask(GENERATE) as (one, first),
        link.ask(GENERATE) as (two, second),
    ):
        assert one != two
        await peer.say(Delta(target=one, tokens=(1,), text="a"), Delta(target=two, tokens=(2,), text="b"))
        await peer.answer(two)
        await settled()
        assert link.running == 1
        await peer.say(Delta(target=one, tokens=(3,), text="c"))
        await peer.answer(one)

        assert [await second.get(), await second.get()] == [
            Delta(target=two, tokens=(2,), text="b"),
            FINISHED,
        ]
        await settled()
        assert [await first.get(), await first.get()] == [
            Delta(target=one, tokens=(1, 3), text="ac"),
            FINISHED,
        ]


async def test_unread_progress_is_replaced() -> None:
    """Of progress that nobody has read yet only the newest is kept."""
    async with linked() as (link, peer), link.ask(GENERATE) as (target, mailbox):
        for done in range(100):
            await peer.progress(target, done, 100, cached=7)
        await settled()
        await peer.answer(target)

        newest = await mailbox.get()
        assert isinstance(newest, Progress)
        assert (newest.done, newest.cached) == (99, 7)
        assert await mailbox.get() == FINISHED


async def test_unread_text_is_joined() -> None:
    """Deltas that nobody has read yet become one, with all tokens and all text in order."""
    async with linked() as (link, peer), link.ask(GENERATE) as (target, mailbox):
        await peer.tokens(target, *range(50))
        await settled()

        delta = await mailbox.get()
        assert delta == Delta(target=target, tokens=tuple(range(50)), text="".join(f"{n} " for n in range(50)))


async def test_channels_are_kept_apart() -> None:
    """Reasoning and answer are never joined into one delta, nor progress into text."""
    async with linked() as (link, peer), link.ask(GENERATE) as (target, mailbox):
        thought = Delta(target=target, tokens=(1,), text="hm", channel="reasoning")
        word = Delta(target=target, tokens=(2,), text="yes")
        await peer.progress(target, 5, 5)
        await peer.say(thought)
        await peer.say(word)
        await settled()

        assert isinstance(await mailbox.get(), Progress)
        assert [await mailbox.get(), await mailbox.get()] == [thought, word]


async def test_joined_deltas_lose_nothing() -> None:
    """Log probabilities are joined with their tokens, and a call stays between the texts before and after it."""

    def said(token: int, text: str, *calls: ToolCall) -> Delta:
        likely = TokenLogprob(token=token, bytes=(token,), logprob=-1.0)
        return Delta(target=target, tokens=(token,), text=text, calls=calls, logprobs=(likely,))

    async with linked() as (link, peer), link.ask(GENERATE) as (target, mailbox):
        look, act = ToolCall(name="look", arguments="{}"), ToolCall(name="act", arguments="{}")
        for delta in (said(1, "a"), said(2, "b", look), said(3, "c"), said(4, "", act)):
            await peer.say(delta)
        await settled()
        first, second = await mailbox.get(), await mailbox.get()

    assert isinstance(first, Delta)
    assert isinstance(second, Delta)
    assert [(delta.text, delta.calls) for delta in (first, second)] == [("ab", (look,)), ("c", (act,))]
    assert [tuple(likely.token for likely in delta.logprobs) for delta in (first, second)] == [(1, 2), (3, 4)]


async def test_slow_reader_stalls_nobody() -> None:
    """A reader that never reads neither holds up another request nor grows a queue."""
    async with (
        linked() as (link, peer),
        link.ask(GENERATE) as (slow, unread),
        link.ask(GENERATE) as (quick, mailbox),
    ):
        for token in range(2000):
            await peer.say(Delta(target=slow, tokens=(token,)), Delta(target=quick, tokens=(token,)))
            assert isinstance(await mailbox.get(), Delta)

        assert len(unread._mail) == 1


async def test_what_is_warmed_later_is_handed_on() -> None:
    """What the worker warms in idle time concerns no request; it is handed on, and proves life."""
    told: list[WarmedLater] = []
    report = PrefixReport(name="long", tokens=9, tokens_warm=9, source="prefilled", seconds=1.0)
    async with linked(on_warmed=told.append) as (link, peer):
        await anyio.sleep(5.0)
        await peer.warmed_later(report)
        await settled()

        assert [news.prefixes for news in told] == [(report,)]
        assert link.pulse.proved == anyio.current_time()
