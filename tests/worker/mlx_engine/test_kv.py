"""Traits and sizes of KV caches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import (
    ArraysCache,
    CacheList,
    ChunkedKVCache,
    KVCache,
    QuantizedKVCache,
    RotatingKVCache,
    make_prompt_cache,
)
from mlx_lm.utils import load_model

from stoker.worker.mlx_engine.kv import KvCost, evaluate, is_batchable, is_trimmable
from tests.fakes.tiny_models import Kind


def filled(model: Any, tokens: int) -> list[Any]:
    kv: list[Any] = make_prompt_cache(model)
    model(mx.array([[65] * tokens]), cache=kv)
    evaluate(kv)
    return kv


@pytest.mark.parametrize(
    ("layer", "trimmable", "batchable"),
    [
        (KVCache(), True, True),
        (RotatingKVCache(8), False, True),
        (ArraysCache(2), False, True),
        (ChunkedKVCache(8), False, False),
        (QuantizedKVCache(), False, False),
        (CacheList(KVCache(), ArraysCache(1)), False, True),
        (CacheList(KVCache(), ChunkedKVCache(8)), False, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_traits_of_each_kind(layer: Any, trimmable: bool, batchable: bool) -> None:
    """Only plain KV caches are trimmed, whatever the others claim; those without `merge` aren't batched."""
    assert is_trimmable([KVCache(), layer]) is trimmable
    assert is_batchable([KVCache(), layer]) is batchable


@pytest.mark.parametrize("kind", ["llama", "sliding", "hybrid"])
def test_cost_covers_what_a_long_sequence_takes(tiny_model: Callable[[Kind], Path], kind: Kind) -> None:
    """The cost measured on eight tokens foresees the bytes of hundreds, within the buffers' rounding."""
    model = load_model(tiny_model(kind))[0]
    cost = KvCost.of(filled(model, 8))
    real = sum(layer.nbytes for layer in filled(model, 512))

    assert cost.bytes(512) <= real <= cost.bytes(512 + 256)


def test_sliding_window_stops_growing(tiny_sliding: Path) -> None:
    """Layers with a window cost no more beyond it and a chunk."""
    cost = KvCost.of(filled(load_model(tiny_sliding)[0], 8))

    assert cost.bytes(65) - cost.bytes(64) == cost.per_token
    assert cost.bytes(5001) - cost.bytes(5000) == cost.per_token // 2
