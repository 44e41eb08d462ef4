"""A client of the HTTP API that asks for one greedy answer."""

from __future__ import annotations

from typing import Any

import openai

from tests.fakes.running_daemon import DEADLINE

SYSTEM = "You are a careful assistant. Answer in one short sentence, and never guess."


def client(url: str) -> openai.AsyncOpenAI:
    """The vendor's own SDK, which must not notice the difference."""
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=DEADLINE)


async def ask(url: str, user: str, system: str = SYSTEM, **options: Any) -> tuple[str, int]:
    """One greedy answer, and how many of its prompt's tokens were cached."""
    messages: Any = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    async with client(url) as api:
        answer = await api.chat.completions.create(
            model="default", messages=messages, temperature=0, **{"max_tokens": 24, **options}
        )
    usage = answer.usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    return answer.choices[0].message.content or "", usage.prompt_tokens_details.cached_tokens or 0
