"""Many streams at once, as their clients see them: one event loop that does nothing else."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from stoker.bench.children import BenchmarkError
from stoker.bench.report import Json
from stoker.bench.stopwatch import HTTP_DEADLINE, content

T = TypeVar("T")

PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Stream:
    """One streamed answer. All times are `perf_counter`'s.

    Attributes:
        sent: When the request was sent.
        pieces: When each piece of content came.
        ended: When the stream did.
        text: The whole content.
        tokens: Of the answer, as `usage` says.
        cached_tokens: Of the prompt, the same.
    """

    sent: float
    pieces: tuple[float, ...]
    ended: float
    text: str
    tokens: int = 0
    cached_tokens: int = 0

    @property
    def first(self) -> float:
        """Seconds to the first piece."""
        return self.pieces[0] - self.sent


class Client:
    """Asks one server, on a connection of its own for each request.

    Args:
        url: `http://HOST:PORT`.
        session: To ask with; see `asking`.
    """

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url + PATH
        self._session = session

    async def follow(self, body: Json, heard: Callable[[float], None] = lambda _: None) -> Stream:
        """Read an answer to its end.

        Args:
            body: See `stopwatch.chat`.
            heard: Called with the time of each piece.

        Raises:
            BenchmarkError: It was refused, or broke off, or had no content.
        """
        pieces: list[float] = []
        text: list[str] = []
        usage: Json = {}
        done = False
        sent = time.perf_counter()
        async with self._session.post(self._url, json=body) as response:
            if response.status != 200:
                raise BenchmarkError(f"{response.status}: {(await response.text())[:500]}")
            async for line in response.content:
                event, done = _event(line, done=done)
                if piece := content(event.get("choices", ())):
                    pieces.append(time.perf_counter())
                    text.append(piece)
                    heard(pieces[-1])
                usage = event.get("usage") or usage
        return _finished(sent, pieces, text, usage, done=done)

    async def leave(self, body: Json, after: float) -> bool:
        """Send a request, and leave after so many seconds; whether it was still without an answer then."""
        pieces: list[float] = []
        asked = asyncio.ensure_future(self.follow(body, pieces.append))
        await asyncio.wait({asked}, timeout=after)
        early = not pieces
        await abandon([asked])
        return early


def asking(url: str, question: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine that asks a server."""

    async def session() -> T:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=None, sock_read=HTTP_DEADLINE)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            return await question(Client(url, session))

    return asyncio.run(session())


async def together(client: Client, bodies: Sequence[Json]) -> tuple[Stream, ...]:
    """Ask all at once; returns when all have ended."""
    return tuple(await asyncio.gather(*map(client.follow, bodies)))


async def abandon(asked: Sequence[asyncio.Future[Any]]) -> None:
    """Close the connections of requests that still run."""
    for each in asked:
        each.cancel()
    await asyncio.wait(asked)


def _event(line: bytes, *, done: bool) -> tuple[Json, bool]:
    data = line.removeprefix(b"data:").strip()
    if data == line.strip() or done:  # a comment, an empty line, or a line after the end
        return {}, done
    if data == b"[DONE]":
        return {}, True
    event: Json = json.loads(data)
    if "error" in event:
        raise BenchmarkError(f"the stream ended in an error: {event['error']}")
    return event, False


def _finished(sent: float, pieces: list[float], text: list[str], usage: Json, *, done: bool) -> Stream:
    ended = time.perf_counter()
    if not done:
        raise BenchmarkError("the stream broke off before its end")
    if not pieces:
        raise BenchmarkError("the answer has no content, so there is no time to the first piece of it")
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return Stream(sent, tuple(pieces), ended, "".join(text), usage.get("completion_tokens", len(pieces)), cached)
