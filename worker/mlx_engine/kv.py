"""What the engine needs to know of mlx-lm's KV caches: traits and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from .prefill import LARGEST_CHUNK


def is_trimmable(kv: Sequence[Any]) -> bool:
    """Whether a common prefix of any length can be cut out.

    Only of plain `KVCache`. Others can't, or say that they can and are wrong: `ChunkedKVCache` cuts each layer to
    another length and then gives wrong tokens.
    """
    return all(type(layer) is KVCache for layer in kv)


def is_batchable(kv: Sequence[Any]) -> bool:
    """Whether mlx-lm can merge caches of this kind into one of a batch."""
    return all(hasattr(layer, "merge") and is_batchable(getattr(layer, "caches", ())) for layer in kv)


def evaluate(kv: Sequence[Any]) -> None:
    """Compute what is still lazy, so that the arrays hold nothing but themselves."""
    mx.eval([layer.state for layer in kv])


@dataclass(frozen=True, slots=True)
class KvCost:
    """Memory of a sequence's KV cache, by its length.

    Attributes:
        fixed: Bytes whatever the length (recurrent state).
        layers: Bytes for each token, and the number of tokens after which the layer stops growing, if it does.
    """

    fixed: int
    layers: tuple[tuple[int, int | None], ...]

    @classmethod
    def of(cls, kv: Sequence[Any]) -> KvCost:
        """Measure a KV cache that holds some tokens."""
        leaves = [leaf for layer in kv for leaf in getattr(layer, "caches", (layer,))]
        growing = [leaf for leaf in leaves if _capacity(leaf)]
        fixed = sum(leaf.nbytes for leaf in leaves if not _capacity(leaf))
        rates = ((leaf.nbytes // _capacity(leaf), _most(leaf)) for leaf in growing)
        return cls(fixed, tuple(rates))

    @property
    def per_token(self) -> int:
        """Bytes for one more token of a short sequence."""
        return sum(rate for rate, _ in self.layers)

    def bytes(self, tokens: int) -> int:
        """Bytes for a sequence of this length."""
        return self.fixed + sum(rate * (tokens if most is None else min(tokens, most)) for rate, most in self.layers)


def _most(layer: Any) -> int | None:
    """Number of tokens after which the layer stops growing: its window, and the chunk that is being prefilled."""
    window = getattr(layer, "max_size", None)
    return None if window is None else int(window) + LARGEST_CHUNK


def _capacity(layer: Any) -> int:
    """Number of tokens that the layer's arrays have room for; 0 if they don't grow with the sequence."""
    keys = getattr(layer, "keys", None)
    while isinstance(keys, list | tuple):  # quantized: (data, scales, biases)
        keys = keys[0]
    return 0 if keys is None else int(keys.shape[2])
