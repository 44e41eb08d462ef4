"""KV caches of tiny models with some tokens in them."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache


def tokens_of(length: int) -> list[int]:
    return [(31 * number) % 200 for number in range(length)]


def filled(model: Any, tokens: list[int], kv: list[Any] | None = None, chunk: int = 100) -> list[Any]:
    kv = kv or make_prompt_cache(model)
    for start in range(0, len(tokens), chunk):
        model(mx.array(tokens[start : start + chunk])[None], cache=kv)
    mx.eval([layer.state for layer in kv])
    return kv
