"""Several generations as one sequence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from stoker.daemon.dispatch import PrefillProgress, Unavailable, Waiting
from stoker.daemon.gateway.merging import Indexed, Merged, generations
from tests.fakes.fake_choices import FakeChoices
from tests.fakes.fake_dispatch import FINISHED, STARTED, FakeDispatch, Hold, delta
from tests.fakes.openai_requests import read

pytestmark = pytest.mark.anyio


async def outputs_of(source: FakeDispatch, n: int) -> list[Merged]:
    """All that `n` generations give."""
    async with generations(source, read(n=n).bodies) as outputs:
        return [output async for output in outputs]


def of(index: int, outputs: Sequence[Merged]) -> list[Any]:
    """One generation's part."""
    return [each.output for each in outputs if isinstance(each, Indexed) and each.index == index]


async def test_single_one_is_passed_through() -> None:
    """One generation is the source's own, without anything around it."""
    script = (Waiting("loading", 0), STARTED, delta("a"), FINISHED)

    assert await outputs_of(FakeDispatch(script), 1) == list(script)


async def test_several_keep_their_order_and_their_index() -> None:
    """Each generation's outputs come in their order, under its number; what tells of a wait comes as it is."""
    first, second = (STARTED, delta("a"), delta("b"), FINISHED), (STARTED, delta("c"), FINISHED)
    wait, progress = Waiting("loading", 0), PrefillProgress(1, 2)
    got = await outputs_of(FakeChoices((wait, *first), (*second[:1], progress, *second[1:])), 2)

    assert of(0, got) == list(first)
    assert of(1, got) == list(second)
    assert wait in got
    assert progress in got


async def test_all_run_at_once() -> None:
    """None waits for another's end."""
    holds = Hold(), Hold()
    source = FakeChoices(*((STARTED, hold, FINISHED) for hold in holds))
    async with generations(source, read(n=2).bodies) as outputs:
        with anyio.fail_after(5):
            for hold in holds:
                await hold.reached.wait()
            for hold in holds:
                hold.let_go.set()
            assert len([output async for output in outputs]) == 4


async def test_one_failure_fails_all() -> None:
    """The first that fails is what the reader hears, and the others are left."""
    source = FakeChoices((STARTED, Hold()), (STARTED, Unavailable("no worker")))
    with pytest.raises(Unavailable, match="no worker"):
        await outputs_of(source, 2)

    assert sorted(source.left) == [0, 1]


async def test_leaving_leaves_all() -> None:
    """Whoever leaves early ends every generation, before the block is over."""
    holds = [Hold() for _ in range(3)]
    source = FakeChoices(*((STARTED, hold) for hold in holds))
    async with generations(source, read(n=3).bodies) as outputs:
        await anext(outputs)
        for hold in holds:
            await hold.reached.wait()

    assert sorted(source.left) == [0, 1, 2]


async def test_being_cancelled_leaves_all() -> None:
    """A client that leaves ends every generation."""
    holds = Hold(), Hold()
    source = FakeChoices(*((STARTED, hold) for hold in holds))
    reading = asyncio.ensure_future(outputs_of(source, 2))
    for hold in holds:
        await hold.reached.wait()
    reading.cancel()
    await asyncio.wait({reading})

    assert sorted(source.left) == [0, 1]


async def test_slow_reader_holds_them_back() -> None:
    """What is not read is not fetched either: at most a few outputs lie between."""
    fetched = 0

    class Counting(FakeDispatch):
        async def _play(self) -> Any:
            nonlocal fetched
            for _ in range(1000):
                fetched += 1
                yield delta("x")

    async with generations(Counting(()), read(n=2).bodies) as outputs:
        await anext(outputs)
        await anyio.wait_all_tasks_blocked()

        assert fetched <= 6
