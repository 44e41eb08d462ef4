"""The first request of an agent after a start, with all its tools, in the shape of each API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import anthropic
import openai
import pytest

from tests.fakes.agent_tools import AGENT_TOOLS, anthropic_tools
from tests.fakes.running_daemon import DEADLINE, RunningDaemon
from tests.fakes.tiny_models import roomy

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SYSTEM = "You are a careful agent. Use the tools, and tell in one sentence what you did."
QUESTIONS = ("Where is the error?", "Add a test.", "Why?")
AFTER_USER = len("\nassistant\n") + 3
"""Tokens of the prompt after what the user said: three marks, and the role. A byte is a token."""

Counts: TypeAlias = tuple[int, int]
"""Tokens of a prompt, and how many of them were cached."""


async def by_chat(url: str, user: str) -> Counts:
    """OpenAI's chat completions."""
    messages: Any = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
    tools: Any = list(AGENT_TOOLS)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=DEADLINE) as api:
        answer = await api.chat.completions.create(model="default", messages=messages, tools=tools, max_tokens=2)
    usage = answer.usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    return usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens or 0


async def by_responses(url: str, user: str) -> Counts:
    """OpenAI's responses."""
    tools: Any = [{"type": "function", "strict": False, **each["function"]} for each in AGENT_TOOLS]
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=DEADLINE) as api:
        answer = await api.responses.create(
            model="default", instructions=SYSTEM, input=user, tools=tools, max_output_tokens=2
        )
    assert answer.usage is not None
    return answer.usage.input_tokens, answer.usage.input_tokens_details.cached_tokens


async def by_messages(url: str, user: str) -> Counts:
    """Anthropic's messages."""
    system: Any = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}]
    messages: Any = [{"role": "user", "content": user}]
    tools: Any = list(anthropic_tools())
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0, timeout=DEADLINE) as api:
        answer = await api.messages.create(
            model="default", system=system, messages=messages, tools=tools, max_tokens=2
        )
    cached = answer.usage.cache_read_input_tokens or 0
    return answer.usage.input_tokens + cached + (answer.usage.cache_creation_input_tokens or 0), cached


@pytest.fixture
def roomy_model(scripted_model: Path, tmp_path: Path) -> Path:
    """A model with room for all the tools, each byte of which is a token."""
    return roomy(scripted_model, tmp_path / "roomy")


@pytest.mark.timeout(300)
async def test_first_request_of_an_agent_is_warm(roomy_model: Path) -> None:
    """Learned from two requests, system prompt and tools are warm for the first one after a start, by each API."""
    async with RunningDaemon(roomy_model, {"STOKER_BACKOFF_BASE_SEC": "0.05"}) as daemon:
        await daemon.ready()
        for question in QUESTIONS[:2]:
            await by_responses((await daemon.status()).http, question)
        for generation, ask in enumerate((by_chat, by_responses, by_messages), start=2):
            async with daemon.control() as control:
                await control.restart()
            readiness = await daemon.ready(generation)
            (learned,) = [prefix for prefix in readiness.warmup.prefixes if prefix.name.startswith("learned")]
            prompt, cached = await ask((await daemon.status()).http, QUESTIONS[2])

            assert readiness.warm
            assert cached == learned.tokens == learned.tokens_warm > len(json.dumps(AGENT_TOOLS))
            assert prompt - cached == len(QUESTIONS[2]) + AFTER_USER
