"""Requests of a storm, drawn from a seed, and what became of each: the text that counts, and the longest silence."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from stoker.bench.report import Json

PATH = "/v1/chat/completions"
SYSTEM = "You are a careful assistant. Answer in one short sentence, and never guess."
PROMPTS = 6
"""Different user texts: few enough that each is also asked undisturbed."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. Equal ones have equal answers."""

    user: int
    seed: int | None
    stream: bool
    max_tokens: int

    def body(self) -> Json:
        """As the client sends it."""
        sampling = {"temperature": 0} if self.seed is None else {"temperature": 0.8, "seed": self.seed}
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"Question {self.user}: tell me about the {self.user}th stoker, été, 日本?"},
        ]
        stream = {"stream": True, "stream_options": {"include_usage": True}} if self.stream else {}
        return {"model": "default", "messages": messages, "max_tokens": self.max_tokens, **sampling, **stream}


def drawn(seed: int, count: int, tokens: tuple[int, int]) -> Iterator[Ask]:
    """So many requests: half greedy, half seeded; two of three streamed; answers of `tokens` (least, most)."""
    chance = random.Random(seed)  # noqa: S311 - so that a storm can be had again
    lengths = [tokens[0] + (tokens[1] - tokens[0]) * step // 3 for step in range(4)]
    for _ in range(count):
        user = chance.randrange(PROMPTS)
        yield Ask(user, chance.choice((None, user)), chance.random() < 2 / 3, chance.choice(lengths))


@dataclass(slots=True)
class Reply:
    """What a client got.

    Attributes:
        text: Content, and whatever else the answer holds, in the order in which it came.
        ending: Finish reason and the counts of tokens; empty if it did not end well.
        trouble: Why it failed; None if it did not.
        pause: The longest time in seconds without anything of the answer.
        seconds: To the end.
    """

    text: str = ""
    ending: tuple[Any, ...] = ()
    trouble: str | None = None
    pause: float = 0.0
    seconds: float = 0.0
    _last: float = field(default_factory=time.perf_counter)
    _began: float = field(default_factory=time.perf_counter)

    def same(self, other: Reply) -> bool:
        """Whether a client can't tell them apart."""
        return (self.text, self.ending) == (other.text, other.ending)

    def sign_of_life(self) -> None:
        """Something of the answer came."""
        now = time.perf_counter()
        self.pause = max(self.pause, now - self._last)
        self.seconds = now - self._began
        self._last = now

    def add(self, part: Json) -> None:
        """A message, or a delta of one."""
        for name in ("reasoning_content", "content"):
            self.text += part.get(name) or ""
        for call in part.get("tool_calls") or ():
            self.text += json.dumps(call.get("function"), sort_keys=True)

    def end(self, finish: str | None, usage: Json | None) -> None:
        """What is said last. How much of the prompt was cached may differ."""
        counts = (usage["prompt_tokens"], usage["completion_tokens"]) if usage else ()
        self.ending = (finish, *counts)


async def ask(session: aiohttp.ClientSession, url: str, what: Ask) -> Reply:
    """Send a request and read its answer to the end. Never raises for what the daemon does."""
    reply = Reply()
    try:
        async with session.post(f"{url}{PATH}", json=what.body()) as response:
            if response.status != 200:
                reply.trouble = f"{response.status}: {(await response.text())[:200]}"
            elif what.stream:
                await _read_stream(response, reply)
            else:
                _read_whole(await response.json(), reply)
    except (aiohttp.ClientError, TimeoutError) as error:
        reply.trouble = f"{type(error).__name__}: {error}"
    reply.sign_of_life()
    return reply


def _read_whole(answer: Json, reply: Reply) -> None:
    choice = answer["choices"][0]
    reply.add(choice["message"])
    reply.end(choice["finish_reason"], answer["usage"])


async def _read_stream(response: aiohttp.ClientResponse, reply: Reply) -> None:
    finish, usage, done = None, None, False
    async for line in response.content:
        if not line.startswith(b"data: "):
            continue
        if line.strip() == b"data: [DONE]":
            done = True
            continue
        chunk = json.loads(line[6:])
        if "error" in chunk:
            reply.trouble = f"error event: {chunk['error'].get('message', '')[:200]}"
            return
        reply.sign_of_life()
        for choice in chunk["choices"]:
            reply.add(choice["delta"])
            finish = choice.get("finish_reason") or finish
        usage = chunk.get("usage") or usage
    if done:
        reply.end(finish, usage)
    else:
        reply.trouble = "the stream ended without [DONE]"
