"""The daemon's end of a worker's connection, with a scripted worker at the other end, in virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from stoker.daemon.link import ProtocolBroken, RequestRefused, WorkerLink, WorkerLost
from stoker.ipc.framing import ErrorResponse, Notification, Request, Response
from stoker.ipc.messages import (
    CacheFigures,
    Delta,
    ErrorCode,
    Figures,
    Finished,
    Generate,
    Hello,
    Load,
    Loaded,
    Progress,
    Statistics,
    TextPrompt,
    Welcome,
)
from tests.fakes.fake_peer import FINISHED, GENERATE, USAGE, FakePeer, joined, linked

pytestmark = pytest.mark.anyio

LOAD = Load(model="/models/tiny", cache_dir="/nowhere")
FIGURES = Figures(
    memory_bytes=1,
    cache=CacheFigures(entries=0, pinned=0, bytes=0, limit_bytes=1, hits=0, misses=0, evictions=0),
    running=0,
)
LOADED = Loaded(
    model="tiny",
    context_tokens=1,
    vocabulary=1,
    kv_bytes_per_token=1,
    memory_bytes=1,
    seconds=1.0,
    prefix_reuse="trimmable",
)


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


async def settled() -> None:
    """Let everything that is under way arrive."""
    await anyio.wait_all_tasks_blocked()


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


# -- leaving -----------------------------------------------------------------------------------------------


async def test_leaving_early_cancels() -> None:
    """Whoever leaves before the result has the request cancelled in the worker."""
    async with linked() as (link, peer):
        async with link.ask(GENERATE) as (target, _):
            await peer.asked()

        assert await peer.cancelled() == target
        assert link.running == 0


async def test_being_cancelled_cancels() -> None:
    """A reader that is itself cancelled in the middle of its wait has the request cancelled, too."""

    async def read(link: WorkerLink) -> None:
        async with link.ask(GENERATE) as (_, mailbox):
            await mailbox.get()

    async with linked() as (link, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(read, link)
        target, _ = await peer.asked()
        tasks.cancel_scope.cancel()

        with anyio.CancelScope(shield=True):
            assert await peer.cancelled() == target
            assert link.running == 0
            await link.idle()


async def test_leaving_after_the_result_is_silent() -> None:
    """A request that was answered is not cancelled."""
    async with linked() as (link, peer):
        async with link.ask(GENERATE) as (target, mailbox):
            await peer.asked()
            await peer.answer(target)
            assert await mailbox.get() == FINISHED
        async with link.ask(Statistics()):
            assert await peer.asked() == (2, Statistics())


async def test_late_news_are_ignored() -> None:
    """What still comes for a request that was left concerns nobody, and the connection goes on."""
    async with linked() as (link, peer):
        async with link.ask(GENERATE) as (target, _):
            pass
        await peer.tokens(target, 1, 2)
        await peer.progress(target, 1, 2)
        await peer.answer(target, Finished(reason="cancelled", usage=USAGE))
        await peer.refuse(target, ErrorCode.GENERATION_FAILED)
        await settled()

        assert not link.lost


# -- refusals ----------------------------------------------------------------------------------------------


async def test_refusal_is_told() -> None:
    """A request that the worker refuses fails with the worker's code, words and remedy."""
    async with linked() as (link, peer), link.ask(GENERATE) as (target, mailbox):
        await peer.refuse(target, ErrorCode.CONTEXT_EXCEEDED, "too long", remedy="shorten it")

        with pytest.raises(RequestRefused, match="too long") as refused:
            await mailbox.get()
        assert (refused.value.code, refused.value.data.remedy) == (ErrorCode.CONTEXT_EXCEEDED, "shorten it")
        assert link.running == 0


async def test_refusal_in_the_middle_comes_after_what_was_said() -> None:
    """Text that came before the refusal is read before it."""
    async with linked() as (link, peer), link.ask(GENERATE) as (target, mailbox):
        await peer.tokens(target, 1)
        await peer.refuse(target, ErrorCode.GENERATION_FAILED)
        await settled()

        assert isinstance(await mailbox.get(), Delta)
        with pytest.raises(RequestRefused):
            await mailbox.get()


@pytest.mark.parametrize("text", ["x" * (17 << 20), "\ud800"], ids=["over the frame limit", "not Unicode"])
async def test_unsendable_request_is_refused(text: str) -> None:
    """A request that no frame can carry is the request's fault: the worker and its other requests go on."""
    async with linked() as (link, peer), link.ask(GENERATE) as (target, mailbox):
        with pytest.raises(RequestRefused) as refused:
            async with link.ask(Generate(prompt=TextPrompt(text=text))):
                pytest.fail("it cannot have been sent")

        assert refused.value.code == ErrorCode.INVALID_PROMPT
        assert link.running == 1
        await peer.answer(target)
        assert await mailbox.get() == FINISHED


# -- a lost worker -----------------------------------------------------------------------------------------


async def end(peer: FakePeer) -> None:
    await peer.die()


async def say(peer: FakePeer, line: bytes) -> None:
    await peer.stream.send(line)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        pytest.param(None, "the worker closed its connection", id="end"),
        pytest.param(b"\xff\xfe{{{\n", "broke the protocol: not a line of UTF-8 JSON", id="garbage"),
        pytest.param(
            b'{"jsonrpc":"2.0","method":"dance"}\n', "broke the protocol: unknown notification", id="unknown"
        ),
        pytest.param(b"[]\n", "batch requests are not supported", id="batch"),
        pytest.param(
            b'{"jsonrpc":"2.0","id":0,"method":"hello","params":{"protocol":1,"pid":1,"stoker":"","python":""}}\n',
            "broke the protocol: unexpected Request",
            id="second hello",
        ),
        pytest.param(
            b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"what?"}}\n',
            "broke the protocol: unexpected ErrorResponse",
            id="error without id",
        ),
    ],
)
async def test_lost_worker_ends_all_requests(line: bytes | None, why: str) -> None:
    """However the connection ends, each open request ends with the reason, and so does every later one."""
    async with joined() as (link, peer), anyio.create_task_group() as tasks:
        ends: list[str] = []

        async def run() -> None:
            ends.append(str(await link.run()))

        tasks.start_soon(run)
        async with link.ask(GENERATE) as (one, first), link.ask(GENERATE) as (_, second):
            await peer.tokens(one, 1)
            await (say(peer, line) if line else end(peer))
            await settled()
            assert isinstance(await first.get(), Delta), "what had come before is still read"
            for mailbox in (first, second):
                with pytest.raises(WorkerLost, match=why):
                    await mailbox.get()

        assert link.lost
        assert [why in reason for reason in ends] == [True]
        with pytest.raises(WorkerLost, match=why):
            async with link.ask(GENERATE):
                pytest.fail("there is no worker to ask")


async def test_end_and_breach_are_told_apart() -> None:
    """An end, even inside a message, is only the end of a worker; a breach of the protocol is its fault."""
    async with joined() as (link, peer):
        await peer.stream.send(b'{"jsonrpc":"2.0","method":"st')
        await peer.die()
        assert type(await link.run()) is WorkerLost
    async with joined() as (link, peer):
        await peer.stream.send(b"[]\n")
        assert type(await link.run()) is ProtocolBroken


async def test_wrong_kind_of_answer_breaks_the_protocol() -> None:
    """A worker that answers a generation with figures can't be trusted with the others."""
    async with joined() as (link, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(link.run)
        async with link.ask(GENERATE) as (target, mailbox):
            await peer.answer(target, FIGURES)

            with pytest.raises(WorkerLost, match="answered with Figures instead of Finished"):
                await mailbox.get()


async def test_worker_that_is_gone_before_the_request_is_sent() -> None:
    """A request to a worker that has just gone fails as lost, not as an error of the stream."""
    async with joined() as (link, peer):
        await peer.die()

        with pytest.raises(WorkerLost, match="closed its connection"):
            await link.call(Statistics(), Figures)
        assert link.running == 0


async def test_first_reason_of_a_loss_stays() -> None:
    """What ended the connection first is what all are told."""
    async with joined() as (link, _):
        link.lose("killed by SIGSEGV")
        link.lose("the worker closed its connection")

        with pytest.raises(WorkerLost, match="killed by SIGSEGV"):
            await link.call(Statistics(), Figures)


# -- draining ----------------------------------------------------------------------------------------------


async def test_idle_when_nothing_was_asked() -> None:
    """A link without requests is idle at once."""
    async with joined() as (link, _):
        await link.idle()


async def test_all_who_wait_for_idle_are_told() -> None:
    """However many wait, all hear when the last request ended, be it by an answer or by a refusal."""
    told: list[int] = []
    async with linked() as (link, peer), anyio.create_task_group() as tasks:

        async def wait(number: int) -> None:
            await link.idle()
            told.append(number)

        async with link.ask(GENERATE) as (one, _), link.ask(GENERATE) as (two, _):
            for number in range(3):
                tasks.start_soon(wait, number)
                await settled()
            await peer.answer(one)
            await settled()
            assert told == []
            await peer.refuse(two, ErrorCode.INVALID_PROMPT)
            await settled()
            assert sorted(told) == [0, 1, 2]


async def test_notification_and_request_have_their_frames() -> None:
    """Requests carry increasing ids from 1, cancels none."""
    async with linked() as (link, peer):
        for expected in (1, 2):
            async with link.ask(GENERATE):
                assert await peer.heard() == Request(expected, GENERATE)
            assert isinstance(await peer.heard(), Notification)


async def test_hello_is_kept_out_of_the_conversation() -> None:
    """The handshake leaves nothing open."""
    async with joined() as (link, peer):
        await peer.hello()
        assert isinstance(await link.greet(), Hello)
        assert link.running == 0
