"""Warming the standard prefix of a model without an engine around it: for `warmup.warmup_kv_cache`.

The engine's own warmup is `warming`, which shares its thread with users' requests. Both compute and store alike, so a
prefix that one has made warm is warm for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from ..errors import InsufficientMemory, InvalidPrompt
from ..prefix import chat_prefix
from ..prefix_cache import PrefixCache
from .admission import check_ids
from .kv import KvCost, evaluate, is_trimmable
from .loading import embedding_rows
from .prefill import Prefill
from .warming import END

NAME = "system"
"""The entry's name; also the daemon's for its standard prefix."""
LONGEST_CHUNK = 0.5
"""Seconds; less where less is left."""
SHORTEST_CHUNK = 0.02
"""Seconds; a smaller budget would be spent on reading the weights."""


@dataclass(frozen=True, slots=True)
class Warmth:
    """How far it got, in tokens."""

    done: int
    total: int


def settle(model: Any) -> None:
    """Evaluate every array of a model, on the thread that loaded it: a lazy one can't be used on another.

    `mlx_lm.load` evaluates parameters, but not tables that layers keep to themselves, such as rope frequencies.
    """
    mx.eval([value for module in model.modules() for value in module.values() if isinstance(value, mx.array)])


def warm(model: Any, tokenizer: Any, cache: PrefixCache, system: str, seconds_left: Callable[[], float]) -> Warmth:
    """Make warm what all chats with this system prompt share. What is computed until time is up is stored, too.

    Args:
        model: An mlx-lm model, settled.
        tokenizer: mlx-lm's wrapper.
        cache: Where the entry goes, pinned.
        system: The system prompt.
        seconds_left: Asked before each chunk; at 0 or below there is none.

    Raises:
        WorkerError: It can't be done with this model or cache.
    """
    kv = make_prompt_cache(model)
    exact = not is_trimmable(kv)
    tokens = _prefix(model, tokenizer, system, exact=exact)
    prefill = _resumed(model, tokens, kv, cache)
    if prefill is not None:
        _compute(prefill, cache, seconds_left)
        _keep(prefill, cache, exact=exact)
    return Warmth(len(tokens) if prefill is None else prefill.done, len(tokens))


def _prefix(model: Any, tokenizer: Any, system: str, *, exact: bool) -> tuple[int, ...]:
    tokens = chat_prefix(tokenizer, [{"role": "system", "content": system}], exact=exact).tokens
    if not tokens:
        raise InvalidPrompt("the chat template leaves nothing that all chats share")
    rows = embedding_rows(model) or [len(tokenizer.get_vocab())]
    check_ids(tokens, min(rows), "prompt")
    return tokens


def _resumed(model: Any, tokens: tuple[int, ...], kv: list[Any], cache: PrefixCache) -> Prefill | None:
    """A prefill that goes on from what is warm already; None if all of it is, under its own name."""
    hit = cache.lookup([*tokens, END]) if cache.covered(tokens) else None
    if hit is None:
        return Prefill(model, tokens, kv)
    if (hit.length, hit.name) == (len(tokens), NAME):
        return None
    return Prefill(model, tokens, hit.kv, hit.length)


def _compute(prefill: Prefill, cache: PrefixCache, seconds_left: Callable[[], float]) -> None:
    limit = cache.statistics().limit_bytes
    while prefill.remaining and (left := seconds_left()) > 0:
        prefill.chunk_seconds = max(SHORTEST_CHUNK, min(LONGEST_CHUNK, left))
        prefill.step()
        needed = KvCost.of(prefill.kv).bytes(prefill.total)
        if needed > limit:  # told after the first chunk, not after all the work
            raise InsufficientMemory(f"the prefix needs {needed} bytes; the prefix cache takes {limit}")


def _keep(prefill: Prefill, cache: PrefixCache, *, exact: bool) -> None:
    if not prefill.done:
        return
    evaluate(prefill.kv)
    if not cache.put(prefill.tokens[: prefill.done], prefill.kv, name=NAME, pinned=True, exact_only=exact):
        raise InsufficientMemory("the prefix cache has no room beside its other pinned entries")
