"""One question over HTTP, and all of its answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

PATH = "/v1/chat/completions"


def body_of(user: str, **options: Any) -> dict[str, Any]:
    """A greedy request."""
    messages = [{"role": "user", "content": user}]
    return {"model": "default", "messages": messages, "temperature": 0, "max_tokens": 12, **options}


async def chat(url: str, user: str, **options: Any) -> str:
    """The answer's text."""
    return await whole(url, body_of(user, **options))


async def pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """The texts of a stream, as they come."""
    async for line in answer.content:
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:])["choices"]:
                yield choice["delta"].get("content") or ""


async def whole(url: str, body: dict[str, Any]) -> str:
    """The answer's text to a request that is not streamed."""
    async with aiohttp.ClientSession() as http, http.post(f"{url}{PATH}", json=body) as answer:
        assert answer.status == 200, await answer.text()
        document = await answer.json()
    return str(document["choices"][0]["message"]["content"])
