"""Requests outlive their worker: real links, scripted workers, virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from stoker.daemon.dispatch import (
    Limits,
    RequestFailed,
    Started,
)
from stoker.ipc.control_messages import RequestCounts
from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import Delta, Finished, Sampling
from tests.fakes.dispatch_stage import WORDS, settled, stage
from tests.fakes.fake_peer import FINISHED, GENERATE, linked

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


# -- a lost worker -----------------------------------------------------------------------------------------


async def test_goes_on_with_the_next_worker() -> None:
    """A killed worker is a pause: the next one gets the tokens so far, and the client no second beginning."""
    async with stage() as here, linked(1) as (one, peer), linked(2) as (two, successor):
        await here.serve(one)
        client = await here.client()
        target, _ = await peer.asked_to_generate()
        await peer.progress(target, 9, 9, cached=7)
        await peer.tokens(target, 1, 2)
        await peer.die()
        await here.lose()
        assert here.counts == RequestCounts(waiting=1)

        await anyio.sleep(30)
        await here.serve(two)
        target, body = await successor.asked_to_generate()
        await successor.progress(target, 11, 11, cached=0)
        await successor.tokens(target, 3)
        await successor.answer(target)
        await settled()

        assert body == msgspec.structs.replace(GENERATE, emitted=(1, 2))
        assert [type(output) for output in client.outputs].count(Started) == 1
        assert client.tokens == [1, 2, 3]
        assert client.outputs[-1] == FINISHED
        assert here.counts == RequestCounts(served=1, resumed=1)


async def test_text_unread_at_the_loss_is_not_lost() -> None:
    """Tokens that had come but were not read yet when the worker died are delivered, and told to the next."""
    async with stage() as here, linked(1) as (one, peer), linked(2) as (two, successor):
        await here.serve(one)
        async with here.dispatch.generate(GENERATE) as events:
            here.tasks.start_soon(peer.tokens, 1, 5)
            await anext(events)
            await peer.tokens(1, 6, 7)
            await peer.die()
            await settled()
            await here.serve(two)

            delta = await anext(events)
            assert isinstance(delta, Delta)
            assert delta.tokens == (6, 7)
            here.tasks.start_soon(successor.answer, 1)
            assert isinstance(await anext(events), Finished)
        _, body = await successor.asked_to_generate()
        assert body.emitted == (5, 6, 7)


async def test_waits_for_a_newer_generation() -> None:
    """The link that was just lost is not asked again, even while it still counts as the serving one."""
    async with stage() as here, linked(1) as (one, peer), linked(2) as (two, successor):
        await here.serve(one)
        client = await here.client()
        target, _ = await peer.asked_to_generate()
        one.lose("killed by SIGKILL")
        await settled()
        await here.serve(one)
        assert here.counts == RequestCounts(waiting=1)

        await here.serve(two)
        target, _ = await successor.asked_to_generate()
        await successor.answer(target)
        await settled()
        assert client.outputs == [FINISHED]


async def test_tokens_of_an_earlier_life_are_kept() -> None:
    """A request that itself continues one is resumed with its own tokens and the new ones."""
    async with stage() as here, linked(1) as (one, peer), linked(2) as (two, successor):
        await here.serve(one)
        await here.client(msgspec.structs.replace(GENERATE, emitted=(8, 9)))
        target, first = await peer.asked_to_generate()
        await peer.tokens(target, 1)
        await peer.die()
        await here.serve(two)
        _, second = await successor.asked_to_generate()

        assert (first.emitted, second.emitted) == ((8, 9), (8, 9, 1))


async def test_attempts_are_bounded() -> None:
    """A request that loses worker after worker is given up after its attempts, with the cause and the last words."""
    async with stage(Limits(attempts=3)) as here:
        client = await here.client()
        for generation in (1, 2, 3):
            async with linked(generation) as (link, peer):
                await here.serve(link)
                await peer.asked_to_generate()
                await peer.die()
                await here.lose()

        assert "3 workers in a row were lost before this request got any further" in client.unavailable.reason
        assert "closed its connection" in client.unavailable.reason
        assert client.unavailable.last_words == WORDS
        assert here.counts == RequestCounts(failed=1, resumed=2)


async def test_accepted_requests_are_let_into_a_full_waiting_room() -> None:
    """When a worker dies under more requests than may wait, all of them go on; only newcomers are turned away."""
    async with stage(Limits(max_waiting=2)) as here, linked(1) as (one, peer), linked(2) as (two, successor):
        await here.serve(one)
        clients = [await here.client() for _ in range(10)]
        for _ in clients:
            await peer.asked_to_generate()
        await peer.die()
        await here.lose()
        assert here.counts == RequestCounts(waiting=10)
        assert (await here.client()).unavailable.full

        await here.serve(two)
        for _ in clients:
            target, _body = await successor.asked_to_generate()
            await successor.answer(target)
        await settled()

        assert [client.outputs for client in clients] == [[FINISHED]] * 10
        assert here.counts == RequestCounts(served=10, resumed=10, failed=1)


async def test_leaving_while_waiting_for_the_successor() -> None:
    """A client that leaves during the pause is counted as gone, and the next worker never hears of it."""
    async with stage() as here, linked(1) as (one, peer), linked(2) as (two, _):
        await here.serve(one)
        client = await here.client()
        await peer.asked_to_generate()
        await peer.die()
        await here.lose()
        client.leave.cancel()
        await settled()
        await here.serve(two)

        assert two.running == 0
        assert here.counts == RequestCounts(cancelled=1)


async def test_two_clients_do_not_disturb_each_other() -> None:
    """One client's refusal leaves the other's answer alone."""
    async with stage() as here, linked() as (link, peer):
        await here.serve(link)
        bad, good = await here.client(), await here.client()
        one, _ = await peer.asked_to_generate()
        two, _ = await peer.asked_to_generate()
        await peer.refuse(one, ErrorCode.INVALID_PROMPT)
        await peer.tokens(two, 4)
        await peer.answer(two)
        await settled()

        assert isinstance(bad.error, RequestFailed)
        assert good.tokens == [4]
        assert here.counts == RequestCounts(served=1, failed=1)


# -- seeds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0.7, seed=0), Sampling(temperature=0.7, seed=42)], ids=str
)
async def test_given_seed_is_kept(sampling: Sampling) -> None:
    """Greedy requests need no seed, and a client's own seed is left alone, be it 0."""
    async with stage() as here, linked() as (link, peer):
        await here.serve(link)
        await here.client(msgspec.structs.replace(GENERATE, sampling=sampling))

        _, body = await peer.asked_to_generate()
        assert body.sampling == sampling


async def test_seed_is_drawn_once() -> None:
    """A sampling request without a seed gets one, different from others', and keeps it on the next worker."""
    body = msgspec.structs.replace(GENERATE, sampling=Sampling(temperature=0.7))
    async with stage() as here, linked(1) as (one, peer), linked(2) as (two, successor):
        await here.serve(one)
        await here.client(body)
        await here.client(body)
        seeds = [(await peer.asked_to_generate())[1].sampling.seed for _ in range(2)]
        await peer.die()
        await here.serve(two)
        again = [(await successor.asked_to_generate())[1].sampling.seed for _ in range(2)]

        assert None not in seeds
        assert len(set(seeds)) == 2
        assert sorted(map(str, seeds)) == sorted(map(str, again))
