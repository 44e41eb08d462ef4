"""How requests on a link end when they are refused, or when the worker is lost or drained, in virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from stoker.daemon.link import ProtocolBroken, RequestRefused, WorkerLost
from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import CacheFigures, ChatPrompt, Delta, Figures, Generate, Prompt, Statistics, TextPrompt
from tests.fakes.fake_peer import FINISHED, GENERATE, FakePeer, joined, linked, settled

pytestmark = pytest.mark.anyio

FIGURES = Figures(
    memory_bytes=1,
    cache=CacheFigures(entries=0, pinned=0, bytes=0, limit_bytes=1, hits=0, misses=0, evictions=0),
    running=0,
)


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


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


def nested(depth: int) -> ChatPrompt:
    """A prompt with a message as deep as that."""
    message: dict[str, Any] = {}
    for _ in range(depth):
        message = {"a": message}
    return ChatPrompt(messages=(message,))


@pytest.mark.parametrize(
    "prompt",
    [TextPrompt(text="x" * (17 << 20)), TextPrompt(text="\ud800"), nested(100_000)],
    ids=["over the frame limit", "not Unicode", "nested too deeply"],
)
async def test_unsendable_request_is_refused(prompt: Prompt) -> None:
    """A request that no frame can carry is the request's fault: the worker and its other requests go on."""
    async with linked() as (link, peer), link.ask(GENERATE) as (target, mailbox):
        with pytest.raises(RequestRefused) as refused:
            async with link.ask(Generate(prompt=prompt)):
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
