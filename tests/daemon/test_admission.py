"""Who gets a worker, in which order, and what those who wait are told: scripted workers, virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from stoker.daemon.admission import Limits, Waiting
from stoker.daemon.lifecycle import Phase
from stoker.daemon.outage import NO_HURRY
from stoker.daemon.suspects import PROOF
from stoker.ipc.control_messages import RequestCounts
from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import CountTokens, Generate, TextPrompt, TokenCount
from tests.fakes.dispatch_stage import WORDS, Stage, settled, stage
from tests.fakes.fake_peer import FINISHED, GENERATE, FakePeer, linked

pytestmark = pytest.mark.anyio

CRASH = "crashed with SIGSEGV: a fault in native code, or out of memory"
KILL = "killed by SIGKILL, not by Stoker: somebody did it, or the system was out of memory"


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


def asking(text: str) -> Generate:
    return msgspec.structs.replace(GENERATE, prompt=TextPrompt(text=text))


async def text_asked(peer: FakePeer) -> str:
    """The prompt of the next request that the worker hears."""
    _, body = await peer.asked_to_generate()
    assert isinstance(body.prompt, TextPrompt)
    return body.prompt.text


# -- what those who wait are told --------------------------------------------------------------------------


async def test_told_at_once_and_at_each_change() -> None:
    """A waiting request is told phase and place at once, again when the phase changes, and when one ahead leaves."""
    async with stage() as here:
        first, second = await here.client(), await here.client()
        here.publish(Phase.LOADING)
        await settled()
        here.publish(Phase.LOADING, "41 %")
        await settled()
        first.leave.cancel()
        await settled()

        assert first.waits == [Waiting("starting", 0), Waiting("loading", 0)]
        assert second.waits == [Waiting("starting", 1), Waiting("loading", 1), Waiting("loading", 0)]


async def test_served_at_once_is_not_told() -> None:
    """With a ready worker there is no word of waiting."""
    async with stage() as here, linked() as (link, peer):
        await here.serve(link)
        client = await here.client()
        target, _ = await peer.asked_to_generate()
        await peer.answer(target)
        await settled()

        assert client.waits == []


async def test_resumed_is_told() -> None:
    """A stream whose worker died is told that it waits, with its place before those that came later."""
    async with stage() as here, linked(1) as (one, peer), linked(2) as (two, _):
        await here.serve(one)
        client = await here.client()
        await peer.asked_to_generate()
        await peer.die()
        await here.lose()
        newcomer = await here.client()
        await here.serve(two)

        assert client.waits[-1] == Waiting("starting", 0)
        assert newcomer.waits == [Waiting("starting", 1)]


# -- order -------------------------------------------------------------------------------------------------


async def test_counting_waits_like_a_generation() -> None:
    """Counting tokens waits for a worker, survives one, and has its place in the line."""
    async with stage() as here, linked(1) as (one, peer), linked(2) as (two, successor):
        counted: list[int] = []

        async def count() -> None:
            counted.append(await here.dispatch.count_tokens(CountTokens(prompt=TextPrompt(text="how long"))))

        here.tasks.start_soon(count)
        await settled()
        assert here.counts == RequestCounts(waiting=1)
        await here.serve(one)
        await peer.asked()
        await peer.die()
        await here.lose()
        await here.serve(two)
        target, _ = await successor.asked()
        await successor.answer(target, TokenCount(tokens=2))
        await settled()

        assert counted == [2]
        assert (here.counts.running, here.counts.waiting) == (0, 0)


async def test_place_is_free_at_once() -> None:
    """A client that leaves while it waits frees its place at once, and nothing of it remains."""
    async with stage(Limits(max_waiting=1)) as here:
        client = await here.client()
        client.leave.cancel()
        await settled()
        again = await here.client()

        assert again.waits == [Waiting("starting", 0)]
        assert here.counts == RequestCounts(waiting=1, cancelled=1)


# -- bounds ------------------------------------------------------------------------------------------------


async def test_resume_has_a_total_deadline() -> None:
    """A request that has been around for long gets no further worker, and says so."""
    async with stage(Limits(wait_timeout=300, resume_timeout=400)) as here, linked(1) as (one, peer):
        await here.serve(one)
        client = await here.client()
        await peer.asked_to_generate()
        await anyio.sleep(350)
        await peer.die()
        await here.lose()
        await anyio.sleep(51)

        assert client.at == pytest.approx(400)
        assert "within 400 s of its arrival" in client.unavailable.reason


async def test_running_answer_outlives_the_deadline() -> None:
    """An answer that runs is not cut by the deadline for resuming."""
    async with stage(Limits(resume_timeout=400)) as here, linked(1) as (one, peer):
        await here.serve(one)
        client = await here.client()
        target, _ = await peer.asked_to_generate()
        await anyio.sleep(5000)
        await peer.answer(target)
        await settled()

        assert client.outputs == [FINISHED]


async def test_failed_says_when_to_ask_again() -> None:
    """Where only a person can help, the refusal is at once, with the last words, and clients need not hammer."""
    async with stage() as here:
        here.publish(Phase.FAILED, "died 6 times within 300 s")
        client = await here.client()

        assert (client.at, client.unavailable.retry_after) == (0, NO_HURRY)
        assert client.unavailable.last_words == WORDS


async def test_long_answer_survives_many_kills() -> None:
    """An answer that gets further with each worker may lose any number of them to kills from outside."""
    async with stage(Limits(attempts=2), causes=True) as here:
        client = await here.client()
        for generation in range(1, 9):
            async with linked(generation) as (link, peer):
                await here.serve(link)
                target, _ = await peer.asked_to_generate()
                await peer.tokens(target, *range(PROOF))
                await settled()
                await peer.die()
                await here.lose(KILL)
        async with linked(9) as (link, peer):
            await here.serve(link)
            target, _ = await peer.asked_to_generate()
            await peer.answer(target)
            await settled()

        assert client.outputs[-1] == FINISHED
        assert len(client.tokens) == 8 * PROOF
        assert here.counts == RequestCounts(served=1, resumed=8)


# -- poison ------------------------------------------------------------------------------------------------


async def crash(here: Stage, peer: FakePeer, cause: str = CRASH) -> None:
    """The worker dies, and its cause is known."""
    await peer.die()
    await here.lose(cause)
    await settled()


async def test_poison_alone_costs_two_workers() -> None:
    """A request that crashes two workers fails with a clear error, and the third worker never hears of it."""
    async with stage(causes=True) as here, linked(3) as (three, _):
        client = await here.client(asking("poison"))
        for generation in (1, 2):
            async with linked(generation) as (link, peer):
                await here.serve(link)
                assert await text_asked(peer) == "poison"
                await crash(here, peer)
        await here.serve(three)

        assert client.failure.code == ErrorCode.GENERATION_FAILED
        assert "ended two workers in a row" in client.failure.message
        assert CRASH in client.failure.message
        assert client.failure.data.remedy
        assert three.running == 0
        assert here.counts == RequestCounts(failed=1, resumed=1)


async def test_suspects_are_tried_one_at_a_time() -> None:
    """After a crash the requests that ran are retried one by one, each until it has got further; newcomers after."""
    async with stage(causes=True) as here, linked(1) as (one, peer), linked(2) as (two, successor):
        await here.serve(one)
        for name in "abc":
            await here.client(asking(name))
            await peer.asked_to_generate()
        await crash(here, peer)
        await here.client(asking("new"))
        await here.serve(two)
        order: list[str] = []
        for _ in range(4):
            assert two.running == len(order) + 1
            target, body = await successor.asked_to_generate()
            assert isinstance(body.prompt, TextPrompt)
            order.append(body.prompt.text)
            await successor.tokens(target, *range(PROOF))
            await settled()

        assert order == ["a", "b", "c", "new"]


async def test_poison_among_innocents_fails_alone() -> None:
    """Of three requests under two crashes the poisonous one fails, and the third worker answers the others."""
    async with stage(causes=True) as here, linked(3) as (three, last):
        clients = {name: await here.client(asking(name)) for name in ("a", "poison", "c")}
        async with linked(1) as (one, peer):
            await here.serve(one)
            for _ in clients:
                await peer.asked_to_generate()
            await crash(here, peer)
        async with linked(2) as (two, peer):
            await here.serve(two)
            target, _ = await peer.asked_to_generate()
            await peer.tokens(target, *range(PROOF))
            assert await text_asked(peer) == "poison"
            await crash(here, peer)
        await here.serve(three)
        for _ in range(2):
            target, _ = await last.asked_to_generate()
            await last.answer(target)
        await settled()

        assert "ended two workers" in clients["poison"].failure.message
        assert [clients[name].outputs[-1] for name in "ac"] == [FINISHED] * 2
        assert here.counts.failed == 1


async def test_kills_from_outside_isolate_nobody() -> None:
    """After a kill that somebody sent, all requests go on at once, together."""
    async with stage(causes=True) as here, linked(1) as (one, peer), linked(2) as (two, _):
        await here.serve(one)
        for name in "abc":
            await here.client(asking(name))
            await peer.asked_to_generate()
        await crash(here, peer, KILL)
        await here.serve(two)

        assert two.running == 3


async def test_waits_for_the_verdict() -> None:
    """A request whose worker is lost goes nowhere before it is known why, even if another worker serves already."""
    async with stage(causes=True) as here, linked(1) as (one, peer), linked(2) as (two, _):
        await here.serve(one)
        await here.client()
        await peer.asked_to_generate()
        await here.serve(two)
        await peer.die()
        await settled()
        assert two.running == 0

        assert here.causes is not None
        here.causes[1] = KILL
        here.publish(Phase.READY)  # the same again: the death of a retired worker shows nowhere
        await settled()
        assert two.running == 1


async def test_engine_fault_twice_is_poison() -> None:
    """A request under which the engine fails twice fails for good, and the worker lives on."""
    async with stage(causes=True) as here, linked(1) as (one, peer):
        await here.serve(one)
        client = await here.client()
        for _ in range(2):
            target, _body = await peer.asked_to_generate()
            await peer.refuse(target, ErrorCode.GENERATION_FAILED, "the batch failed")
        await settled()

        assert client.failure.code == ErrorCode.GENERATION_FAILED
        assert "the batch failed" in client.failure.message
        assert here.counts == RequestCounts(failed=1, resumed=1)


async def test_leaving_ends_a_probation() -> None:
    """A suspect whose client leaves lets the next in line begin."""
    async with stage(causes=True) as here, linked(1) as (one, peer), linked(2) as (two, successor):
        await here.serve(one)
        clients = [await here.client(asking(name)) for name in "ab"]
        await crash(here, peer)
        await here.serve(two)
        assert await text_asked(successor) == "a"
        clients[0].leave.cancel()
        await successor.cancelled()

        assert await text_asked(successor) == "b"
