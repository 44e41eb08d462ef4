"""Layers of a KV cache without any arrays, for tests of what is kept and found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

BYTES_PER_TOKEN = 10


@dataclass
class Layer:
    """Has what the cache needs to know of a layer: a size, and a length that can be cut."""

    length: int

    @property
    def nbytes(self) -> int:
        return self.length * BYTES_PER_TOKEN

    def trim(self, count: int) -> int:
        self.length -= count
        return count


def layers(tokens: Sequence[int]) -> list[Any]:
    return [Layer(len(tokens))]


def run(start: int, count: int) -> list[int]:
    return list(range(start, start + count))
