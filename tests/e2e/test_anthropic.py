"""Anthropic's SDK against the whole program: `stoker run`, a real worker, and a tiny model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import Message

from tests.fakes.anthropic_client import WEATHER
from tests.fakes.running_daemon import DEADLINE, RunningDaemon

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SYSTEM = "You are a careful assistant. Answer in one short sentence, and never guess."
USER = {"role": "user", "content": "What is a stoker?"}


@asynccontextmanager
async def served(model: Path) -> AsyncIterator[tuple[anthropic.AsyncAnthropic, openai.AsyncOpenAI]]:
    """Clients of a daemon that serves `model`, of both APIs."""
    async with RunningDaemon(model, {"KV_CACHE_WARMUP": "0", "STOKER_ACCEPT_ANY_MODEL": "true"}) as daemon:
        await daemon.ready()
        url = (await daemon.status()).http
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


async def test_both_apis_tell_the_same_answer(tiny_llama: Path) -> None:
    """Whole, streamed and through OpenAI's API, a conversation has one answer, and as many tokens as were counted."""
    async with served(tiny_llama) as (client, other):
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


async def test_agents_noise_costs_no_prefill(tiny_llama: Path) -> None:
    """A new billing header and a mark that moved on leave system prompt, tools and history in the cache."""
    mark = {"cache_control": {"type": "ephemeral"}}

    def system(number: str) -> list[dict[str, Any]]:
        header = f"x-anthropic-billing-header: cc_version=2.1.38; cch={number};"
        return [{"type": "text", "text": header}, {"type": "text", "text": SYSTEM, **mark}]

    first = {"role": "user", "content": [{"type": "text", "text": "What is a stoker?", **mark}]}
    async with served(tiny_llama) as (client, _):
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


async def test_begun_answer_goes_on(tiny_llama: Path) -> None:
    """An answer that the client began is continued as the model would have continued it itself."""
    async with served(tiny_llama) as (client, _):
        text = said(await client.messages.create(**ask())).rstrip()
        begun = text[: len(text) // 2].rstrip()
        rest = await client.messages.create(
            **ask(messages=[USER, {"role": "assistant", "content": begun}], max_tokens=len(text) - len(begun))
        )

    assert begun
    assert begun + said(rest) == text


async def test_request_for_no_tokens_warms(tiny_llama: Path) -> None:
    """`max_tokens` 0 answers with nothing, and the same request afterwards finds its prompt computed."""
    async with served(tiny_llama) as (client, _):
        warmed = await client.messages.create(**ask(max_tokens=0))
        message = await client.messages.create(**ask())

    assert (warmed.content, warmed.stop_reason, warmed.usage.output_tokens) == ([], "max_tokens", 0)
    assert (warmed.usage.cache_read_input_tokens, prompt_tokens(warmed)) == (0, prompt_tokens(message))
    assert message.usage.input_tokens == 1
