"""One streamed chat completion over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import msgspec

from .outcome import NEGATIVE, Failure

TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=600)
"""An answer takes as long as it takes; a silence longer than any wait for a worker does not."""


class _Problem(msgspec.Struct):
    message: str = "no message"


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = _Delta()


class _Chunk(msgspec.Struct):
    """What is read of an OpenAI chunk or error; other fields are ignored."""

    choices: list[_Choice] = []
    error: _Problem | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)


async def stream(url: str, body: dict[str, Any], write: Callable[[str], None], key: str | None = None) -> str:
    """The whole answer, after each piece was given to `write`; `key` is for an API that wants one.

    Raises:
        Failure: If the server refuses, or the answer breaks off.
    """
    said: list[str] = []
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=TIMEOUT, headers=headers) as session,
            session.post(url, json=body) as response,
        ):
            if response.status != 200:
                raise _refusal(response.status, await response.read())
            async for data in _events(response):
                if data == b"[DONE]":
                    return "".join(said)
                for piece in _pieces(data):
                    said.append(piece)
                    write(piece)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Failure(f"the answer broke off: {str(error) or 'silence'}; see `stoker status`") from error
    raise Failure("the answer ended before its end; see `stoker status`")


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Data of the server-sent events. Stoker's have one data line each; comments keep the connection alive."""
    async for line in response.content:
        if line.startswith(b"data:"):
            yield line.removeprefix(b"data:").strip()


def _pieces(data: bytes) -> list[str]:
    chunk = _CHUNK.decode(data)
    if chunk.error is not None:
        raise Failure(chunk.error.message)
    return [choice.delta.content for choice in chunk.choices if choice.delta.content]


def _refusal(status: int, raw: bytes) -> Failure:
    try:
        problem = _CHUNK.decode(raw).error or _Problem()
    except msgspec.DecodeError:
        problem = _Problem(f"the server answered {status}")
    return Failure(problem.message, NEGATIVE if status in {429, 503} else 2)
