"""Several generations for one request, as one sequence of outputs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

from ...ipc.messages import Generate
from ..dispatch import Output, PrefillProgress, Waiting
from .backend import Generations


@dataclass(frozen=True, slots=True)
class Indexed:
    """What one of several generations gave."""

    index: int
    output: Output


Merged: TypeAlias = Output | Indexed
"""Of a single generation, its outputs; of several, theirs with an index, but for those that tell of a wait."""

_News: TypeAlias = Output | Indexed | Exception | None


def generations(
    source: Generations, bodies: Sequence[Generate]
) -> AbstractAsyncContextManager[AsyncIterator[Merged]]:
    """Make all `bodies` at once; leaving the block cancels those that still run.

    A single one is passed through as it is, and costs nothing. Of several, the first that fails fails all. A slow
    reader holds them back, so that what it has not taken is merged where it is produced.

    Raises:
        Unavailable, RequestFailed: On entering or iterating, as of `Generations.generate`.
    """
    return source.generate(bodies[0]) if len(bodies) == 1 else _side_by_side(source, bodies)


@asynccontextmanager
async def _side_by_side(source: Generations, bodies: Sequence[Generate]) -> AsyncIterator[AsyncIterator[Merged]]:
    news: asyncio.Queue[_News] = asyncio.Queue(maxsize=len(bodies))
    pumps = [asyncio.ensure_future(_pump(source, index, body, news)) for index, body in enumerate(bodies)]
    try:
        yield _Reading(news, len(bodies))
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.wait(pumps)


async def _pump(source: Generations, index: int, body: Generate, news: asyncio.Queue[_News]) -> None:
    end: Exception | None = None
    try:
        async with source.generate(body) as outputs:
            async for output in outputs:
                await news.put(output if isinstance(output, Waiting | PrefillProgress) else Indexed(index, output))
    except Exception as error:  # noqa: BLE001 - whoever reads the outputs raises it
        end = error
    await news.put(end)


class _Reading:
    """What the pumps bring, until all have ended."""

    def __init__(self, news: asyncio.Queue[_News], running: int) -> None:
        self._news = news
        self._running = running

    def __aiter__(self) -> AsyncIterator[Merged]:
        return self

    async def __anext__(self) -> Merged:
        while self._running:
            got = await self._news.get()
            if isinstance(got, Exception):
                raise got
            if got is not None:
                return got
            self._running -= 1
        raise StopAsyncIteration
