"""Requests find a worker, or wait for one within bounds: real links, scripted workers, virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from stoker.daemon.dispatch import (
    Limits,
    PrefillProgress,
    RequestFailed,
    Started,
)
from stoker.daemon.lifecycle import Phase
from stoker.daemon.outage import UNKNOWN_START
from stoker.ipc.control_messages import RequestCounts
from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import Delta, ToolCall
from tests.fakes.dispatch_stage import WORDS, settled, stage
from tests.fakes.fake_peer import FINISHED, GENERATE, linked

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


# -- a ready worker ----------------------------------------------------------------------------------------


async def test_served_at_once() -> None:
    """With a ready worker the request goes there at once: admission, prefill, text and end come in order."""
    async with stage() as here, linked() as (link, peer):
        await here.serve(link)
        client = await here.client()
        target, body = await peer.asked_to_generate()
        for done in (7, 9):
            await peer.progress(target, done, 9, cached=7)
            await settled()
        await peer.tokens(target, 1, 2)
        await settled()
        assert here.counts == RequestCounts(running=1)
        await peer.answer(target)
        await settled()

        assert body == GENERATE
        assert client.outputs[:2] == [Started(cached_tokens=7, prompt_tokens=9), PrefillProgress(done=9, total=9)]
        assert (client.tokens, client.outputs[-1]) == ([1, 2], FINISHED)
        assert here.counts == RequestCounts(served=1)


async def test_what_was_held_back_comes_before_the_end() -> None:
    """What a worker tells with its result is told like any delta, and the result is the last all the same."""
    held = Delta(target=1, tokens=(), channel="tool", calls=(ToolCall(name="f", arguments="{}"),))
    ended = msgspec.structs.replace(FINISHED, held=(held,))
    async with stage() as here, linked() as (link, peer):
        await here.serve(link)
        client = await here.client()
        target, _ = await peer.asked_to_generate()
        await peer.answer(target, ended)
        await settled()

        assert client.outputs == [held, ended]


async def test_leaving_early_cancels() -> None:
    """A client that leaves in the middle has its generation cancelled in the worker, and is counted."""
    async with stage() as here, linked() as (link, peer):
        await here.serve(link)
        client = await here.client()
        target, _ = await peer.asked_to_generate()
        await peer.tokens(target, 1)
        await settled()
        client.leave.cancel()

        assert await peer.cancelled() == target
        assert here.counts == RequestCounts(cancelled=1)
        assert link.running == 0


async def test_breaking_off_cancels() -> None:
    """Leaving the block between two events, without being cancelled oneself, cancels just the same."""
    async with stage() as here, linked() as (link, peer):
        await here.serve(link)

        async with here.dispatch.generate(GENERATE) as events:
            here.tasks.start_soon(peer.tokens, 1, 5)
            assert isinstance(await anext(events), Delta)

        target, _ = await peer.asked_to_generate()
        assert await peer.cancelled() == target
        assert here.counts == RequestCounts(cancelled=1)


async def test_leaving_before_asking() -> None:
    """A client that leaves before it reads anything was no trouble to the worker."""
    async with stage() as here, linked() as (link, _):
        await here.serve(link)
        async with here.dispatch.generate(GENERATE):
            assert here.counts == RequestCounts(running=1)

        assert here.counts == RequestCounts(cancelled=1)
        assert link.running == 0


@pytest.mark.parametrize(
    "code",
    [code for code in ErrorCode if code is not ErrorCode.GENERATION_FAILED],
    ids=lambda code: code.name.lower(),
)
async def test_refusal_is_final(code: ErrorCode) -> None:
    """What the worker refuses, it would refuse again: the client hears the worker's code, words and remedy."""
    async with stage() as here, linked() as (link, peer):
        await here.serve(link)
        client = await here.client()
        target, _ = await peer.asked_to_generate()
        await peer.refuse(target, code, "no", remedy="do it differently")
        await settled()

        assert isinstance(client.error, RequestFailed)
        assert (client.error.code, client.error.message) == (code, "no")
        assert client.error.data.remedy == "do it differently"
        assert here.counts == RequestCounts(failed=1)


async def test_failed_generation_goes_on_where_it_stopped() -> None:
    """An engine fault is tried again on the same worker, from the tokens that the client already has."""
    async with stage() as here, linked() as (link, peer):
        await here.serve(link)
        client = await here.client()
        target, _ = await peer.asked_to_generate()
        await peer.tokens(target, 1, 2)
        await peer.refuse(target, ErrorCode.GENERATION_FAILED)
        again, body = await peer.asked_to_generate()
        await peer.tokens(again, 3)
        await peer.answer(again)
        await settled()

        assert body == msgspec.structs.replace(GENERATE, emitted=(1, 2))
        assert client.tokens == [1, 2, 3]
        assert here.counts == RequestCounts(served=1, resumed=1)


# -- waiting -----------------------------------------------------------------------------------------------


async def test_waits_until_ready() -> None:
    """A request that comes before the worker is ready waits, and is counted as waiting only."""
    async with stage() as here, linked() as (link, peer):
        client = await here.client()
        assert here.counts == RequestCounts(waiting=1)
        await anyio.sleep(250)
        await here.serve(link)
        target, _ = await peer.asked_to_generate()
        assert here.counts == RequestCounts(running=1)
        await peer.answer(target)
        await settled()

        assert client.outputs == [FINISHED]
        assert client.at == pytest.approx(250)


async def test_waiting_ends_with_its_timeout() -> None:
    """A request waits for the configured time, to the second, and then says when to come again."""
    async with stage(Limits(wait_timeout=300)) as here:
        client = await here.client()
        await anyio.sleep(290)
        here.publish(Phase.BACKOFF, "exited with code 1", retry_at=anyio.current_time() + 25)
        await anyio.sleep(11)

        assert client.at == pytest.approx(300)
        assert client.unavailable.reason == "no worker was ready within 300 s"
        assert (client.unavailable.retry_after, client.unavailable.full) == (15 + UNKNOWN_START, False)
        assert here.counts == RequestCounts(failed=1)


async def test_waiting_room_is_bounded() -> None:
    """One more than may wait is turned away at once; as soon as one leaves, there is room again."""
    async with stage(Limits(max_waiting=3)) as here:
        inside = [await here.client() for _ in range(3)]
        outside = await here.client()
        assert (outside.unavailable.full, outside.at) == (True, 0)
        assert "3 requests are already waiting" in str(outside.error)
        assert here.counts == RequestCounts(waiting=3, failed=1)

        inside[0].leave.cancel()
        await settled()
        await here.client()
        assert here.counts == RequestCounts(waiting=3, failed=1, cancelled=1)


async def test_waiting_in_vain_is_refused_at_once() -> None:
    """Where only a person can help, a request is refused at once, with the reason and the last words."""
    async with stage() as here:
        here.publish(Phase.FAILED, "died 6 times within 300 s")
        client = await here.client()

        assert (client.unavailable.reason, client.at) == ("died 6 times within 300 s", 0)
        assert (client.unavailable.last_words, client.unavailable.full) == (WORDS, False)
        assert here.counts == RequestCounts(failed=1)


async def test_those_who_wait_hear_of_the_failure() -> None:
    """Requests that wait when the last attempt fails are refused then, not at their timeout."""
    async with stage() as here:
        clients = [await here.client() for _ in range(5)]
        await anyio.sleep(20)
        here.publish(Phase.FAILED, "no such model")
        await settled()

        assert {(client.unavailable.reason, round(client.at)) for client in clients} == {("no such model", 20)}
        assert here.counts == RequestCounts(failed=5)


async def test_refusal_without_a_reason_names_the_phase() -> None:
    """Where the machine gives no reason, the phase is one."""
    async with stage() as here:
        here.publish(Phase.DOWN)

        assert (await here.client()).unavailable.reason == "the worker is down"
