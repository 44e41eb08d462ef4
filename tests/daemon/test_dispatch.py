"""Requests find a worker, wait for one within bounds, and outlive one: real links, scripted workers, virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import msgspec
import pytest
from anyio.abc import TaskGroup

from stoker.daemon.dispatch import (
    Dispatch,
    Limits,
    Output,
    PrefillProgress,
    RequestFailed,
    Started,
    Unavailable,
)
from stoker.daemon.lifecycle import Phase, State
from stoker.daemon.link import WorkerLink
from stoker.daemon.readiness import NOTHING_YET, Board, describe
from stoker.ipc.control_messages import RequestCounts
from stoker.ipc.messages import Delta, ErrorCode, Finished, Generate, Sampling
from tests.fakes.fake_peer import FINISHED, GENERATE, linked

pytestmark = pytest.mark.anyio

WORDS = ("terminate called after throwing", "[METAL] Command buffer execution failed")


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


@dataclass
class Client:
    """What one client got."""

    outputs: list[Output] = field(default_factory=list)
    error: Unavailable | RequestFailed | None = None
    at: float = 0.0
    leave: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def tokens(self) -> list[int]:
        return [token for output in self.outputs if isinstance(output, Delta) for token in output.tokens]

    @property
    def unavailable(self) -> Unavailable:
        assert isinstance(self.error, Unavailable)
        return self.error


@dataclass
class Stage:
    """A board, a place for the serving link, and clients."""

    tasks: TaskGroup
    limits: Limits
    board: Board = field(default_factory=lambda: Board(NOTHING_YET))
    link: WorkerLink | None = None
    began: float = field(default_factory=anyio.current_time)

    def __post_init__(self) -> None:
        self.dispatch = Dispatch(self.board, lambda: self.link, lambda: WORDS, self.limits)

    @property
    def counts(self) -> RequestCounts:
        return self.dispatch.tally.snapshot()

    def publish(self, phase: Phase, reason: str | None = None, retry_at: float | None = None) -> None:
        generation = self.link.generation if self.link else 0
        state = State(phase=phase, wanted=phase is not Phase.DOWN, generation=generation, reason=reason)
        self.board.publish(describe(state, 0.0, None), retry_at)

    async def serve(self, link: WorkerLink) -> None:
        """A worker is ready."""
        self.link = link
        self.publish(Phase.READY)
        await anyio.wait_all_tasks_blocked()

    async def lose(self) -> None:
        """No worker is ready."""
        self.link = None
        self.publish(Phase.STARTING)
        await anyio.wait_all_tasks_blocked()

    async def client(self, body: Generate = GENERATE) -> Client:
        """A client that asks, and reads until the end."""
        client = Client()
        self.tasks.start_soon(self._read, client, body)
        await anyio.wait_all_tasks_blocked()
        return client

    async def _read(self, client: Client, body: Generate) -> None:
        with client.leave:
            try:
                async with self.dispatch.generate(body) as events:
                    async for event in events:
                        client.outputs.append(event)
            except (Unavailable, RequestFailed) as error:
                client.error = error
        client.at = anyio.current_time() - self.began


@asynccontextmanager
async def stage(limits: Limits | None = None) -> AsyncIterator[Stage]:
    async with anyio.create_task_group() as tasks:
        yield Stage(tasks, limits or Limits())
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


async def settled() -> None:
    await anyio.wait_all_tasks_blocked()


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
        assert (client.unavailable.retry_after, client.unavailable.full) == (15, False)
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
    """A request that kills each worker is given up after its attempts, with the cause and the last words."""
    async with stage(Limits(attempts=3)) as here:
        client = await here.client()
        for generation in (1, 2, 3):
            async with linked(generation) as (link, peer):
                await here.serve(link)
                await peer.asked_to_generate()
                await peer.die()
                await here.lose()

        assert "3 workers in a row failed under this request" in client.unavailable.reason
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
