"""Asking the worker to measure, with a scripted worker at the other end, in virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from stoker.daemon.link import WorkerLink
from stoker.daemon.measuring import Gauge
from stoker.daemon.readiness import Board
from stoker.daemon.steward import Refusal
from stoker.ipc.control_messages import Measurement, SuccessorStatus
from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import Measure, Speed
from tests.fakes.fake_peer import FakePeer, linked
from tests.fakes.fake_steward import LOADING, READY, changed

pytestmark = pytest.mark.anyio

SPEED = Speed(device="cpu", bandwidth=8e9, flops=6e10, seconds=0.5)


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


async def refused(link: WorkerLink, peer: FakePeer, code: ErrorCode) -> Refusal:
    """What becomes of the worker's error."""
    caught: list[Refusal] = []
    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            with pytest.raises(Refusal) as error:
                await Gauge(Board(READY), lambda: link).measure()
            caught.append(error.value)

        tasks.start_soon(ask)
        await peer.refuse((await peer.asked())[0], code, "something is computed", remedy="try again later")
    return caught[0]


async def test_the_workers_figures_are_passed_on() -> None:
    """The ready worker is asked once, and what it measured is the answer."""
    answers: list[Measurement] = []
    async with linked() as (link, peer), anyio.create_task_group() as tasks:

        async def ask() -> None:
            answers.append(await Gauge(Board(READY), lambda: link).measure())

        tasks.start_soon(ask)
        request_id, body = await peer.asked()
        await peer.answer(request_id, SPEED)

    assert body == Measure()
    assert answers == [Measurement(device="cpu", bandwidth=8e9, flops=6e10, seconds=0.5)]


async def test_without_a_ready_worker() -> None:
    """The refusal says what is instead, and how to wait."""
    with pytest.raises(Refusal, match=r"no worker is ready \(loading\)") as caught:
        await Gauge(Board(LOADING), lambda: None).measure()

    assert caught.value.code is ErrorCode.NOT_READY
    assert "stoker ready --wait" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (ErrorCode.BUSY, ErrorCode.BUSY),
        (ErrorCode.METHOD_NOT_FOUND, ErrorCode.UNSUPPORTED),
        (ErrorCode.INTERNAL_ERROR, ErrorCode.REFUSED),
    ],
)
async def test_the_workers_refusal_is_told(said: ErrorCode, code: ErrorCode) -> None:
    """A worker that is busy, or can't measure, is told as that, in its own words."""
    async with linked() as (link, peer):
        refusal = await refused(link, peer, said)

        assert not link.pulse.bad, "it is no fault of the engine"
    assert (refusal.code, refusal.message, refusal.remedy) == (code, "something is computed", "try again later")


async def test_beside_a_successor_nothing_is_measured() -> None:
    """While another worker loads on the same machine, the one that serves is not even asked."""
    coming = SuccessorStatus(generation=2, phase="loading", since=1.0)
    async with linked() as (link, _):
        with pytest.raises(Refusal, match="generation 2 is being prepared") as caught:
            await Gauge(Board(changed(READY, successor=coming)), lambda: link).measure()

        assert link.running == 0
    assert caught.value.code is ErrorCode.BUSY


async def test_one_at_a_time() -> None:
    """A second measurement is refused while one is under way: whoever waits behind it waits for no row of them."""
    async with linked() as (link, peer), anyio.create_task_group() as tasks:
        gauge = Gauge(Board(READY), lambda: link)
        tasks.start_soon(gauge.measure)
        request_id, _ = await peer.asked()
        with pytest.raises(Refusal, match="another measurement is under way") as caught:
            await gauge.measure()
        await peer.answer(request_id, SPEED)

    assert caught.value.code is ErrorCode.BUSY


async def test_lost_worker_leaves_the_way_free() -> None:
    """After a worker that died over it, the next one can be asked."""
    async with linked() as (dying, peer), linked() as (next_one, other):
        links = [dying]
        gauge = Gauge(Board(READY), lambda: links[-1])
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                with pytest.raises(Refusal, match="closed its connection"):
                    await gauge.measure()

            tasks.start_soon(ask)
            await peer.asked()
            await peer.die()
        links.append(next_one)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(gauge.measure)
            await other.answer((await other.asked())[0], SPEED)
