"""Prefill of one sequence, chunk by chunk, so that something else may happen between two chunks.

A chunk's forward can't be interrupted, and takes the longer the more tokens came before it. So its size comes
from a time budget and the speed of the chunk before it, not from a constant: on two CPU cores a constant of
2048 tokens (mlx-lm's default) blocks everything for 7 to 23 seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

SMALLEST_CHUNK = 16
"""Fewer tokens cost as much as these: a forward reads all weights once, however short it is."""
LARGEST_CHUNK = 2048
"""More tokens gain no speed on any device, and cost activation memory."""
FIRST_CHUNK = 64
"""Before anything was measured: under a second on two cores."""
ALL_LOGITS = 64
"""A model whose head is not narrowed computes logits for each position of the last forward, of which only the last is
needed. Up to so many positions that is cheaper than another forward; above, it costs time and memory (positions x
vocabulary)."""
TAIL = SMALLEST_CHUNK
"""Length of the last chunk where it is split off because of `ALL_LOGITS`; fewer tokens than these are never left."""


class Pace:
    """Prefill speed, measured, and the chunk size that follows. One may be shared by successive prefills.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._size = 0
        self.tokens_per_second = 0.0

    def now(self) -> float:
        """Seconds of the clock that chunks are measured with."""
        return self._clock()

    def chunk(self, seconds: float) -> int:
        """Number of tokens that fit the budget; grows at most twofold, so that one lucky measurement is harmless."""
        if not self._size:
            return FIRST_CHUNK
        fitting = int(seconds * self.tokens_per_second)
        return max(SMALLEST_CHUNK, min(fitting, 2 * self._size, LARGEST_CHUNK))

    def measured(self, tokens: int, seconds: float) -> None:
        """Learn from a chunk. One shorter than the smallest says nothing about speed."""
        if tokens < SMALLEST_CHUNK:
            return
        self._size = max(tokens, self._size // 2)
        self.tokens_per_second = tokens / max(seconds, 1e-6)


class Prefill:
    """Puts `tokens` into a KV cache, resumable chunk by chunk. All steps run on one thread.

    Args:
        model: An mlx-lm model.
        tokens: The whole prompt; ids must be valid, the model doesn't check (an id outside kills the process).
        kv: A KV cache that holds the first `done` tokens; it is written to. None makes a new one.
        done: Number of tokens in `kv`.
        chunk_seconds: Time budget of one step.
        pace: Speed known from earlier prefills on the same model.
        narrow: The model's head was narrowed, see `head`.
    """

    def __init__(
        self,
        model: Any,
        tokens: Sequence[int],
        kv: list[Any] | None = None,
        done: int = 0,
        *,
        chunk_seconds: float = 0.5,
        pace: Pace | None = None,
        narrow: bool = False,
    ) -> None:
        if not 0 <= done <= len(tokens) or (kv is None and done):
            raise ValueError(
                f"done={done} doesn't fit {len(tokens)} tokens, or the KV cache that holds them is missing"
            )
        self._model = model
        self._pace = pace or Pace()
        self._narrow = narrow
        self.tokens = list(tokens)
        self.kv: list[Any] = make_prompt_cache(model) if kv is None else kv
        self.done = done
        self.chunk_seconds = chunk_seconds

    @property
    def total(self) -> int:
        """Number of tokens in all."""
        return len(self.tokens)

    @property
    def remaining(self) -> int:
        """Number of tokens still to be computed."""
        return self.total - self.done

    @property
    def nbytes(self) -> int:
        """Bytes of the KV cache now."""
        return sum(layer.nbytes for layer in self.kv)

    def step(self, upto: int | None = None) -> mx.array | None:
        """Compute one chunk; the KV cache is evaluated when this returns.

        Args:
            upto: Don't go beyond this many tokens, whatever the budget allows.

        Returns:
            The logits of the last position, shaped (1, vocabulary), if this was the last chunk; else None.
        """
        size = self._size(self.total if upto is None else min(upto, self.total))
        if size <= 0:
            return None
        start = self._pace.now()
        logits = self._model(mx.array(self.tokens[self.done : self.done + size])[None], cache=self.kv)
        # Without reading the logits the language model head is not computed.
        last = logits[:, -1, :] if size == self.remaining else None
        mx.eval([layer.state for layer in self.kv], [] if last is None else last)
        mx.clear_cache()
        self._pace.measured(size, self._pace.now() - start)
        self.done += size
        return last

    def _size(self, end: int) -> int:
        size = min(self._pace.chunk(self.chunk_seconds), end - self.done)
        if end < self.total or self.remaining - size >= TAIL:
            return size
        # This chunk and the tail are what is left: one forward, or two of which the second is no stub.
        return self.remaining if self._narrow or self.remaining <= ALL_LOGITS else self.remaining - TAIL
