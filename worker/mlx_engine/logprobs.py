"""Log probabilities of chosen tokens and of the likeliest ones, from the model's own distribution."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from ...ipc.messages import Likely, TokenLogprob
from .token_bytes import TokenBytes

LEAST = -9999.0
"""Stands for minus infinity, which JSON hasn't; OpenAI's API has the same."""

begin: Callable[..., None] = mx.async_eval
"""Has arrays computed, and doesn't wait for them."""


class Recorder:
    """Remembers each position's distribution until its token is told.

    Args:
        top: How many of the likeliest tokens are told.
        spelling: Bytes of tokens.
    """

    def __init__(self, top: int, spelling: TokenBytes) -> None:
        self._top = top
        self._spelling = spelling
        # At most two: the engine looks one token ahead.
        self._positions: deque[Any] = deque()

    def record(self, logits: Any) -> None:
        """The model's own logits for the next position, shaped (1, vocabulary)."""
        wide = logits.astype(mx.float32)
        logprobs = wide - mx.logsumexp(wide, axis=-1, keepdims=True)
        begin(logprobs)
        self._positions.append(logprobs)

    def tell(self, token: int) -> TokenLogprob:
        """The oldest position's: `token` was chosen there."""
        logprobs = np.array(self._positions.popleft())[0]
        top = tuple(self._likely(other, logprobs) for other in _likeliest(logprobs, self._top))
        chosen = self._likely(token, logprobs)
        return TokenLogprob(token=token, bytes=chosen.bytes, logprob=chosen.logprob, top=top)

    def _likely(self, token: int, logprobs: Any) -> Likely:
        logprob = max(float(logprobs[token]), LEAST)
        return Likely(token=token, bytes=tuple(self._spelling[token]), logprob=logprob)


def _likeliest(logprobs: Any, count: int) -> list[int]:
    """Ids in order of falling probability, equal ones by id."""
    if not count:
        return []
    count = min(count, len(logprobs))
    candidates = np.argpartition(-logprobs, count - 1)[:count]
    return [int(token) for token in candidates[np.lexsort((candidates, -logprobs[candidates]))]]
