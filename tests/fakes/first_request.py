"""What a server does with a chat request, up to the first token, done by hand on a prefix cache."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from stoker.worker.chat import chat_tokens
from stoker.worker.mlx_engine.prefill import Prefill
from stoker.worker.prefix import chat_prefix
from stoker.worker.prefix_cache import PrefixCache
from tests.fakes.tiny_models import greedy

SYSTEM = "You answer in one short sentence."


@dataclass(frozen=True, slots=True)
class Answered:
    """How a first request went."""

    cached: int
    """Prompt tokens taken from the cache."""
    computed: int
    """Prompt tokens computed."""
    tokens: tuple[int, ...]
    """The beginning of the answer."""
    seconds: float
    """From the request to its first token."""


@dataclass(frozen=True, slots=True)
class Server:
    """A model and what it has warm.

    Attributes:
        model: An mlx-lm model.
        tokenizer: Its tokenizer.
        cache: What is warm.
    """

    model: Any
    tokenizer: Any
    cache: PrefixCache

    def prompt(self, system: str, user: str) -> list[int]:
        """A chat's token ids."""
        return chat_tokens(self.tokenizer, ({"role": "system", "content": system}, {"role": "user", "content": user}))

    def shared(self, system: str) -> int:
        """Length of what all chats with this system prompt share, as far as this model can reuse it."""
        exact = any(type(layer) is not KVCache for layer in self.model.make_cache())
        return len(chat_prefix(self.tokenizer, [{"role": "system", "content": system}], exact=exact).tokens)

    def answer(self, system: str, user: str, count: int = 8) -> Answered:
        """Serve a chat from the cache, as far as that goes."""
        start = time.perf_counter()
        prompt = self.prompt(system, user)
        hit = self.cache.lookup(prompt)
        cached = hit.length if hit else 0
        prefill = Prefill(self.model, prompt, hit.kv if hit else None, cached)
        logits = None
        while logits is None:
            logits = prefill.step()
        first = cast("int", mx.argmax(logits).item())
        seconds = time.perf_counter() - start
        rest = greedy(self.model, [first], count - 1, prefill.kv)
        return Answered(cached, len(prompt) - cached, (first, *rest), seconds)

    def cold(self, system: str, user: str, count: int = 8) -> Answered:
        """Serve it with nothing warm."""
        return Server(self.model, self.tokenizer, PrefixCache()).answer(system, user, count)


def prompt_file(folder: Path, text: str = SYSTEM) -> str:
    """A file with a system prompt."""
    path = folder / "system.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)
