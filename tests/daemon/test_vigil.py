"""Watching over a loaded worker, in virtual time: its silence, its probes, its bad answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from stoker.daemon.attention import Attention
from stoker.daemon.link import RequestRefused, WorkerLink
from stoker.daemon.pulse import Budgets
from stoker.daemon.vigil import watch_over
from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import Finished, Generate, Usage
from tests.fakes.fake_peer import GENERATE, FakePeer, linked

pytestmark = pytest.mark.anyio

BUDGETS = Budgets(first_token=100.0, next_token=10.0, probe_interval=1000.0, bad_answers=2)


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


@dataclass
class Watched:
    """A worker that is watched over; `verdict` is why it was given up, and when."""

    link: WorkerLink
    peer: FakePeer
    attention: Attention
    tasks: anyio.abc.TaskGroup
    verdict: list[tuple[float, str]] = field(default_factory=list)
    began: float = field(default_factory=anyio.current_time)

    @property
    def now(self) -> float:
        return anyio.current_time() - self.began

    async def watch(self, budgets: Budgets) -> None:
        why = await watch_over(self.link, lambda: budgets, self.attention)
        self.verdict.append((round(self.now, 1), why))

    async def generate(self) -> None:
        """A client's request."""
        with suppress(RequestRefused):  # on purpose
            await self.link.call(GENERATE, Finished)

    async def asked(self) -> int:
        """A client asks, and the worker hears it."""
        self.tasks.start_soon(self.generate)
        target, _ = await self.peer.asked_to_generate()
        assert isinstance(target, int)
        return target


@asynccontextmanager
async def watched(budgets: Budgets = BUDGETS, attention: Attention | None = None) -> AsyncIterator[Watched]:
    async with linked() as (link, peer), anyio.create_task_group() as tasks:
        it = Watched(link, peer, attention or Attention(slept=lambda: 0.0), tasks)
        tasks.start_soon(it.watch, budgets)
        yield it
        tasks.cancel_scope.cancel()


async def test_silent_worker_is_noticed_at_its_budget() -> None:
    """A worker that admits a prompt and then says nothing is given up when the first token's budget is over."""
    async with watched() as it:
        await anyio.sleep(7)
        target = await it.asked()
        await it.peer.progress(target, 0, 100)
        await anyio.sleep(200)

        assert it.verdict == [(107.0, "silent: no token and no progress for 100 s with work to do")]


async def test_silence_in_an_answer_has_the_shorter_budget() -> None:
    """A worker that falls silent in the middle of an answer is given up within the next token's budget."""
    async with watched() as it:
        target = await it.asked()
        await anyio.sleep(55)
        await it.peer.tokens(target, 1, 2, 3)
        await anyio.sleep(200)

        assert it.verdict == [(65.0, "silent: no token for 10 s in the middle of an answer")]


async def test_slow_prefill_with_progress_is_left_alone() -> None:
    """A prefill of a hundred budgets that reports its chunks is never given up."""
    async with watched() as it:
        target = await it.asked()
        for chunk in range(101):
            await anyio.sleep(99)
            await it.peer.progress(target, chunk, 101)
        await it.peer.answer(target)
        await anyio.wait_all_tasks_blocked()

        assert it.verdict == []


async def test_idle_worker_is_probed_and_left_alone() -> None:
    """An idle worker is asked for a token each interval, which leaves nothing behind; it answers, and lives on."""
    async with watched() as it:
        for number in (1, 2, 3):
            target, body = await _probed(it, 1000.0 * number)
            assert (body.probe, body.max_tokens) == (True, 1)
            await it.peer.tokens(target, 5)
            await it.peer.answer(target)
            await anyio.wait_all_tasks_blocked()

        assert it.verdict == []


async def _probed(it: Watched, at: float) -> tuple[int, Generate]:
    await anyio.sleep(at - it.now)
    target, body = await it.peer.asked_to_generate()
    assert (round(it.now, 1), type(target)) == (at, int)
    assert isinstance(target, int)
    return target, body


async def test_idle_hang_is_noticed_by_the_probe() -> None:
    """A worker that hangs while nobody asks anything is noticed when the probe stays unanswered."""
    async with watched() as it:
        await anyio.sleep(5000)

        assert it.verdict == [(1100.0, "silent: no token and no progress for 100 s when it was probed")]


async def test_busy_worker_is_not_probed() -> None:
    """Whoever works for clients has proved its life, and is asked for no more."""
    async with watched() as it:
        for _ in range(10):
            await anyio.sleep(900)
            target = await it.asked()
            await it.peer.tokens(target, 1)
            await it.peer.answer(target)
        await anyio.wait_all_tasks_blocked()

        assert it.link._ids.__next__() == 11


async def test_refused_probe_is_repeated_after_the_interval() -> None:
    """A worker that refuses the probe, for want of memory say, is no dead one, and isn't asked again at once."""
    async with watched() as it:
        for number in (1, 2):
            target, _ = await _probed(it, 1000.0 * number)
            await it.peer.refuse(target, ErrorCode.INSUFFICIENT_MEMORY)
            await anyio.wait_all_tasks_blocked()

        assert it.verdict == []


async def test_failing_answers_are_noticed_at_once() -> None:
    """The last bad answer of a row gives the worker up in the same instant."""
    async with watched() as it:
        await anyio.sleep(3)
        await it.peer.refuse(await it.asked(), ErrorCode.GENERATION_FAILED)
        empty = Finished(reason="stop", usage=Usage(prompt_tokens=4, completion_tokens=0, cached_tokens=0))
        await it.peer.answer(await it.asked(), empty)
        await anyio.wait_all_tasks_blocked()

        assert it.verdict == [(3.0, "poisoned: 2 answers in a row were empty or failed")]


async def test_no_verdict_in_the_grace_after_a_wake() -> None:
    """After the machine slept, a worker that answers within the grace is left alone."""
    slept = 0.0
    attention = Attention(slept=lambda: slept)
    attention.look()
    async with watched(attention=attention) as it:
        target = await it.asked()
        await anyio.sleep(99)
        slept = 3600.0
        await anyio.sleep(5)
        await it.peer.progress(target, 1, 2)
        await anyio.sleep(50)
        assert it.verdict == []

        await anyio.sleep(100)
        assert [at for at, _ in it.verdict] == [204.0]


async def test_what_has_arrived_is_read_first() -> None:
    """Progress that is there in the instant of the deadline counts, although nobody has read it yet."""
    async with watched() as it:
        target = await it.asked()
        it.tasks.start_soon(_at_the_last_moment, it, target)
        await anyio.sleep(150)

        assert it.verdict == []


async def _at_the_last_moment(it: Watched, target: int) -> None:
    await anyio.sleep(100 - it.now)
    await it.peer.progress(target, 1, 2)
