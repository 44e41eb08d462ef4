"""Anthropic's SDK against the whole program: `stoker run`, a real worker, and a tiny model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import Message

from tests.fakes.anthropic_client import WEATHER
from tests.fakes.running_daemon import DEADLINE
from tests.fakes.served import served

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SYSTEM = "You are a careful assistant. Answer in one short sentence, and never guess."
USER = {"role": "user", "content": "What is a stoker?"}
ENVIRON = {"KV_CACHE_WARMUP": "0", "STOKER_ACCEPT_ANY_MODEL": "true"}


@pytest.fixture(scope="module")
def tiny_url(tiny_llama: Path) -> Iterator[str]:
    """Where a daemon with random weights listens, which tests share.

    Each sends a system prompt of its own, which differs from the others in the first letters, so that nothing is
    cached for one because of another.
    """
    with served(tiny_llama, ENVIRON) as url:
        yield url


@pytest.fixture(scope="module")
def spoken_url(scripted_model: Path) -> Iterator[str]:
    """Where a daemon with the scripted model listens, which tests share."""
    with served(scripted_model, ENVIRON) as url:
        yield url


@asynccontextmanager
async def clients(url: str) -> AsyncIterator[tuple[anthropic.AsyncAnthropic, openai.AsyncOpenAI]]:
    """Clients of both APIs."""
    async with (
        anthropic.AsyncAnthropic(base_url=url, api_key="unused", max_retries=0, timeout=DEADLINE) as ours,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=DEADLINE) as other,
    ):
        yield ours, other


def ask(**fields: Any) -> dict[str, Any]:
    """A short greedy request."""
    return {"model": "claude-of-tomorrow", "max_tokens": 24, "system": SYSTEM, "messages": [USER], **fields}


def said(message: Message) -> str:
    """The text of an answer."""
    return "".join(block.text for block in message.content if block.type == "text")


def prompt_tokens(message: Message) -> int:
    """All tokens of the prompt."""
    return message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


async def test_both_apis_tell_the_same_answer(tiny_url: str) -> None:
    """Whole, streamed and through OpenAI's API, a conversation has one answer, and as many tokens as were counted."""
    async with clients(tiny_url) as (client, other):
        whole = await client.messages.create(**ask())
        async with client.messages.stream(**ask()) as stream:
            streamed = await stream.get_final_message()
        messages: Any = [{"role": "system", "content": SYSTEM}, USER]
        completion = await other.chat.completions.create(model="default", max_tokens=24, messages=messages)
        counted = await client.messages.count_tokens(
            model="default",
            system=SYSTEM,
            messages=[USER],  # type: ignore[list-item]
        )

    assert said(whole)
    assert said(whole) == said(streamed) == completion.choices[0].message.content
    assert whole.stop_reason == "max_tokens"
    assert prompt_tokens(whole) == prompt_tokens(streamed) == counted.input_tokens
    assert streamed.usage.cache_read_input_tokens


async def test_agents_noise_costs_no_prefill(tiny_url: str) -> None:
    """A new billing header and a mark that moved on leave system prompt, tools and history in the cache."""
    mark = {"cache_control": {"type": "ephemeral"}}
    prompt = "Noise is what an agent sends beside its prompt; think nothing of it."

    def system(number: str) -> list[dict[str, Any]]:
        header = f"x-anthropic-billing-header: cc_version=2.1.38; cch={number};"
        return [{"type": "text", "text": header}, {"type": "text", "text": prompt, **mark}]

    first = {"role": "user", "content": [{"type": "text", "text": "What is a stoker?", **mark}]}
    async with clients(tiny_url) as (client, _):
        message = await client.messages.create(**ask(system=system("00001"), tools=[WEATHER], messages=[first]))
        history: list[Any] = [USER, {"role": "assistant", "content": message.content}]
        again = await client.messages.create(
            **ask(
                system=system("00002"),
                tools=[{**WEATHER, **mark}],
                messages=[*history, {"role": "user", "content": [{"type": "text", "text": "And now?", **mark}]}],
            )
        )

    assert (again.usage.cache_read_input_tokens or 0) >= prompt_tokens(message) - 1
    assert again.usage.input_tokens < prompt_tokens(message)


async def test_begun_answer_goes_on(tiny_url: str) -> None:
    """An answer that the client began is continued as the model would have continued it itself."""
    prompt = "Begin an answer, and go on with it in the same tone until you are told to stop."
    async with clients(tiny_url) as (client, _):
        text = said(await client.messages.create(**ask(system=prompt))).rstrip()
        begun = text[: len(text) // 2].rstrip()
        rest = await client.messages.create(
            **ask(
                system=prompt,
                messages=[USER, {"role": "assistant", "content": begun}],
                max_tokens=len(text) - len(begun),
            )
        )

    assert begun
    assert begun + said(rest) == text


async def test_request_for_no_tokens_warms(tiny_url: str) -> None:
    """`max_tokens` 0 answers with nothing, and the same request afterwards finds its prompt computed."""
    prompt = "Warm this, and say nothing yet: whoever asks in earnest comes soon."
    async with clients(tiny_url) as (client, _):
        warmed = await client.messages.create(**ask(system=prompt, max_tokens=0))
        message = await client.messages.create(**ask(system=prompt))

    assert (warmed.content, warmed.stop_reason, warmed.usage.output_tokens) == ([], "max_tokens", 0)
    assert (warmed.usage.cache_read_input_tokens, prompt_tokens(warmed)) == (0, prompt_tokens(message))
    assert message.usage.input_tokens == 1


def blocks(message: Message) -> list[dict[str, Any]]:
    """An answer's blocks, without their ids."""
    return [block.model_dump(include={"type", "text", "thinking", "name", "input"}) for block in message.content]


def calling(**arguments: Any) -> dict[str, Any]:
    """The block of a call."""
    return {"type": "tool_use", "name": "get_weather", "input": arguments}


SAID: dict[str, tuple[list[dict[str, Any]], str]] = {
    "reasoned": ([{"type": "thinking"}, {"type": "text"}], "end_turn"),
    "one call": ([calling(city="Paris")], "tool_use"),
    "two calls": ([calling(city="Rome"), calling(days=2, city="Oslo")], "tool_use"),
    "text then call": ([{"type": "text"}, calling(city="Bern")], "tool_use"),
    "thought then call": ([{"type": "thinking", "thinking": "Ask the service."}, calling(city="Wien")], "tool_use"),
    "broken call": ([{"type": "text"}], "end_turn"),
}
"""What scripts become: the parts of each block that matter, and why the answer ended."""


async def test_what_a_model_says_becomes_blocks(spoken_url: str) -> None:
    """Thinking, text and calls that the worker's parsers find are blocks, the same in a stream and whole."""
    async with clients(spoken_url) as (client, _):
        for script, (expected, reason) in SAID.items():
            fields = ask(messages=[{"role": "user", "content": script}], tools=[WEATHER], max_tokens=200)
            whole = await client.messages.create(**fields)
            async with client.messages.stream(**fields) as stream:
                streamed = await stream.get_final_message()

            assert blocks(whole) == blocks(streamed)
            pairs = zip(blocks(whole), expected, strict=True)
            assert [{key: block[key] for key in wanted} for block, wanted in pairs] == expected
            assert whole.stop_reason == streamed.stop_reason == reason
            assert whole.usage.output_tokens == streamed.usage.output_tokens


async def test_conversation_with_a_tool_goes_on(spoken_url: str) -> None:
    """A call, its result and the next answer: the client's own history is understood; one call only, if so asked."""
    fields = ask(
        messages=[{"role": "user", "content": "two calls"}],
        tools=[WEATHER],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
        max_tokens=200,
    )
    async with clients(spoken_url) as (client, _):
        first = await client.messages.create(**fields)
        (called,) = first.content
        assert called.type == "tool_use"
        result = {"type": "tool_result", "tool_use_id": called.id, "content": "warm"}
        history: list[Any] = [*fields["messages"], {"role": "assistant", "content": first.content}]
        turn = {"role": "user", "content": [{"type": "text", "text": "plain, please"}, result]}
        second = await client.messages.create(**{**fields, "messages": [*history, turn]})

    assert blocks(first) == [calling(city="Rome")]
    assert said(second) == "The fire is warm, and it stays so: it was lit at dawn."
    assert (second.stop_reason, second.stop_sequence) == ("end_turn", None)


async def test_stop_sequence_ends_an_answer(spoken_url: str) -> None:
    """The model is stopped at the sequence, which is told and not said."""
    fields = ask(messages=[{"role": "user", "content": "plain"}], stop_sequences=["stays", " so"], max_tokens=200)
    async with clients(spoken_url) as (client, _):
        message = await client.messages.create(**fields)

    assert said(message) == "The fire is warm, and it "
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "stays")


async def test_a_model_that_knows_nothing_keeps_to_the_form(tiny_url: str) -> None:
    """Random weights call the tool that they must call, whichever way that is said, and answer in JSON that fits."""
    schema = {
        "type": "object",
        "properties": {"warm": {"type": "boolean"}, "wood": {"enum": ["oak", "ash"]}},
        "required": ["warm", "wood"],
        "additionalProperties": False,
    }
    light = {"name": "light", "input_schema": schema}
    rest = {"name": "rest", "input_schema": {"type": "object", "properties": {}, "additionalProperties": False}}
    choices = ({"type": "tool", "name": "light"}, {"type": "any"})
    loose = {"system": "Form counts.", "max_tokens": 300, "extra_body": {"temperature": 1, "top_k": 50}}
    form = {"format": {"type": "json_schema", "schema": schema}}
    async with clients(tiny_url) as (client, _):
        named, some = [
            await client.messages.create(
                **ask(tools=tools, tool_choice={**choice, "disable_parallel_tool_use": True}, **loose)
            )
            for choice, tools in zip(choices, ([rest, light], [light]), strict=True)
        ]
        async with client.messages.stream(**ask(output_config=form, **loose)) as stream:
            formed = await stream.get_final_message()

    for message in (named, some):
        (block,) = message.content
        assert block.type == "tool_use"
        assert (block.name, message.stop_reason) == ("light", "tool_use")
        assert_fits(block.input)
    assert_fits(json.loads(said(formed)))
    assert formed.stop_reason == "end_turn"


def assert_fits(fire: Any) -> None:
    """The value is of the schema that was asked for."""
    assert (type(fire["warm"]), fire["wood"] in {"oak", "ash"}, len(fire)) == (bool, True, 2)
