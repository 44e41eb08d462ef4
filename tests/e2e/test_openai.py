"""OpenAI's two APIs from end to end: the real client, daemon and worker, and a model that says what it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes.running_daemon import DEADLINE, RunningDaemon
from tests.fakes.scripted_model import SCRIPTS, WEATHER

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@asynccontextmanager
async def client_of(model: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    """The vendor's own SDK, before a daemon that serves `model`."""
    async with RunningDaemon(model, {"KV_CACHE_WARMUP": "0"}) as daemon:
        await daemon.ready()
        url = (await daemon.status()).http
        async with openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=DEADLINE
        ) as client:
            yield client


def saying(script: str, **fields: Any) -> dict[str, Any]:
    """A chat whose answer is a script."""
    return {"model": "default", "messages": [{"role": "user", "content": script}], **fields}


async def test_tools_and_reasoning(scripted_model: Path) -> None:
    """Calls, thoughts and texts of a real model arrive in their places, streamed as whole, and go back as history."""
    weather: Any = [WEATHER]
    async with client_of(scripted_model) as client:
        create = client.chat.completions.create
        called = (await create(**saying("two calls", tools=weather))).choices[0]
        async with client.chat.completions.stream(**saying("two calls", tools=weather)) as stream:
            streamed = (await stream.get_final_completion()).choices[0]
        thought = (await create(**saying("thought then call", tools=weather))).choices[0]
        refused = (await create(**saying("one call", tools=weather, tool_choice="none"))).choices[0]
        calls = called.message.tool_calls or []
        results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in calls]
        after = await create(**saying("plain", messages=[called.message, *results]), tools=weather)

    for choice in (called, streamed):
        functions = [call.function for call in choice.message.tool_calls or [] if call.type == "function"]
        assert [each.name for each in functions] == ["get_weather"] * 2
        assert [each.arguments.replace(" ", "") for each in functions] == [
            '{"city":"Rome"}',
            '{"days":2,"city":"Oslo"}',
        ]
        assert (choice.message.content, choice.finish_reason) == (None, "tool_calls")
    assert getattr(thought.message, "reasoning_content", "").strip() == "Ask the service."
    assert thought.finish_reason == "tool_calls"
    assert (refused.message.tool_calls, refused.finish_reason) == (None, "stop")
    assert after.choices[0].message.content == SCRIPTS["plain"]


async def test_choices_and_completions(scripted_model: Path) -> None:
    """Several answers to one request, and texts without a template, come from the same worker."""
    async with client_of(scripted_model) as client:
        several = await client.chat.completions.create(**saying("fire", n=3, temperature=0.5, seed=1))
        stream = await client.chat.completions.create(
            **saying("fire", n=2, stream=True, stream_options={"include_usage": True})
        )
        chunks = [chunk async for chunk in stream]
        texts = await client.completions.create(model="default", prompt=["<|script:fire|>", "<|script:plain|>"])

    assert [choice.message.content for choice in several.choices] == [SCRIPTS["fire"]] * 3
    assert several.usage is not None
    assert several.usage.completion_tokens % 3 == 0
    for index in (0, 1):
        own = [chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].index == index]
        assert "".join(choice.delta.content or "" for choice in own) == SCRIPTS["fire"]
        assert [choice.finish_reason for choice in own if choice.finish_reason] == ["stop"]
    assert chunks[-1].usage is not None
    assert texts.choices[0].text == SCRIPTS["fire"][: len(texts.choices[0].text)]
    assert SCRIPTS["plain"].startswith(texts.choices[1].text)
