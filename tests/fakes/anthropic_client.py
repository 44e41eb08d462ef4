"""Anthropic's real client, and its requests as plain bodies."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic

from tests.fakes.http import Address

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"

WEATHER = {
    "name": "get_weather",
    "description": "Tell the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def ask(**fields: Any) -> dict[str, Any]:
    """The body of a request for an answer."""
    return {"model": "default", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}], **fields}


@asynccontextmanager
async def sdk(address: Address) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """The real client, which doesn't retry."""
    async with anthropic.AsyncAnthropic(base_url=address.url, api_key="unused", max_retries=0, timeout=20) as client:
        yield client


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The data of a stream's events, each under the name that it has itself; without comments."""
    *events, rest = body.decode().split("\n\n")
    assert rest == "", "the stream ends with a complete event"
    return [_event(event) for event in events]


def _event(text: str) -> dict[str, Any]:
    name, data = [line for line in text.split("\n") if not line.startswith(":")]
    event = json.loads(data.removeprefix("data: "))
    assert isinstance(event, dict)
    assert name == f"event: {event['type']}"
    return event
