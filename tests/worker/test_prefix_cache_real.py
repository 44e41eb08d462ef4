"""The prefix cache with real models' KV: what it serves is right, and what it counts is what is allocated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest
from mlx_lm.models.cache import KVCache, make_prompt_cache

from stoker.worker.prefix_cache import SPARE, PrefixCache
from tests.fakes.fake_layers import run
from tests.fakes.tiny_models import Kind, greedy


@pytest.mark.parametrize("kind", ["llama", "sliding", "hybrid"])
@pytest.mark.parametrize("length", [20, 300])
def test_a_hit_answers_as_cold(kind: Kind, length: int, tiny_model: Callable[[Kind], Path]) -> None:
    """Greedy answers from a hit's KV are those computed from nothing, twice in a row from the same entry."""
    model = mlx_lm.load(str(tiny_model(kind)))[0]
    prefix = [(31 * n) % 200 for n in range(length)]
    prompt = [*prefix, *b"and now?"]
    cache, kv = PrefixCache(), filled(model, prefix)
    cache.put(prefix, kv, exact_only=any(type(layer) is not KVCache for layer in kv))
    cold = greedy(model, prompt, 12)

    for _ in range(2):
        hit = cache.lookup(prompt)
        assert hit is not None
        assert hit.length == length
        assert greedy(model, prompt[length:], 12, hit.kv) == cold


@pytest.mark.parametrize("shared_tokens", [20, 700, 999])
def test_a_cut_hit_answers_as_cold(shared_tokens: int, tiny_llama: Path) -> None:
    """A KV cut in the middle gives the same answer as cold, and the entry it came from still does."""
    model = mlx_lm.load(str(tiny_llama))[0]
    entry = [(7 * n) % 251 for n in range(1000)]
    prompt = [*entry[:shared_tokens], 255, *b" something else"]
    cache = PrefixCache()
    cache.put(entry, filled(model, entry))
    hit = cache.lookup(prompt)

    assert hit is not None
    assert hit.length == shared_tokens
    assert hit.kv[0].keys.shape[2] <= shared_tokens + SPARE
    assert greedy(model, prompt[shared_tokens:], 12, hit.kv) == greedy(model, prompt, 12)
    again = cache.lookup([*entry, 1])
    assert again is not None
    assert greedy(model, [1], 12, again.kv) == greedy(model, [*entry, 1], 12)


def test_bytes_are_those_of_the_arrays(tiny_llama: Path) -> None:
    """The figure is what mlx allocated: layers x (keys + values) x heads x capacity x dimension x 4 bytes."""
    model = mlx_lm.load(str(tiny_llama))[0]
    cache = PrefixCache()
    cache.put(run(0, 200), filled(model, run(0, 200)))

    assert cache.statistics().bytes == 2 * 2 * 2 * 256 * 16 * 4


def filled(model: Any, tokens: list[int]) -> list[Any]:
    kv: list[Any] = make_prompt_cache(model)
    model(mx.array(tokens)[None], cache=kv)
    mx.eval([layer.state for layer in kv])
    return kv
