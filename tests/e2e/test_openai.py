"""OpenAI's two APIs from end to end: the real client, daemon and worker, and a model that says what it is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes.running_daemon import DEADLINE, RunningDaemon
from tests.fakes.scripted_model import SCRIPTS

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


SCHEMA = {
    "type": "object",
    "properties": {"warm": {"type": "boolean"}, "wood": {"enum": ["oak", "ash"]}},
    "required": ["warm", "wood"],
    "additionalProperties": False,
}


async def test_a_model_that_knows_nothing_keeps_to_the_form(tiny_llama: Path) -> None:
    """Random weights answer in JSON that fits the schema, call what they must call, and tell how likely it was."""
    form: Any = {"type": "json_schema", "json_schema": {"name": "fire", "schema": SCHEMA}}
    tools: Any = [
        {"type": "function", "function": {"name": "rest"}},
        {"type": "function", "function": {"name": "light", "parameters": SCHEMA}},
    ]
    light: Any = {"type": "function", "function": {"name": "light"}}
    async with client_of(tiny_llama) as client:
        create = client.chat.completions.create
        random = {"temperature": 1, "seed": 3}
        formed = (await create(**saying("Hello", response_format=form, **random))).choices[0]
        called = (await create(**saying("Hello", tools=tools, tool_choice=light, **random))).choices[0]
        likely = (await create(**saying("Hello", logprobs=True, top_logprobs=2, max_tokens=3))).choices[0]
        text = (await client.completions.create(model="default", prompt="Hello", logprobs=2, max_tokens=3)).choices[0]

    (call,) = called.message.tool_calls or []
    assert call.type == "function"
    for written in (formed.message.content or "", call.function.arguments):
        fire = json.loads(written)
        assert (type(fire["warm"]), fire["wood"] in {"oak", "ash"}, len(fire)) == (bool, True, 2)
    assert (call.function.name, called.message.content, called.finish_reason) == ("light", None, "tool_calls")
    assert likely.logprobs is not None
    assert likely.logprobs.content is not None
    assert [len(each.top_logprobs) for each in likely.logprobs.content] == [2, 2, 2]
    assert all(each.token == each.top_logprobs[0].token for each in likely.logprobs.content), "it was greedy"
    assert text.logprobs is not None
    assert len(text.logprobs.tokens or []) == 3


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objekt"}}}},
            "response_format.json_schema.schema",
        ),
        ({"logit_bias": {"999999": 5}}, "logit_bias"),
    ],
)
async def test_what_only_the_worker_can_see_is_a_400_too(tiny_llama: Path, wrong: dict[str, Any], param: str) -> None:
    """A value that the model can't follow is the request's fault, told by its field's name, and not tried again."""
    async with client_of(tiny_llama) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(**saying("Hello", **wrong))

    assert (refused.value.param, refused.value.code) == (param, "invalid_value")
