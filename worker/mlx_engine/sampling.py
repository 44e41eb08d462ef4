"""Choosing the next token from its log probabilities.

Randomness depends on the seed and the token's position only, not on a generator's state. So a generation that another
worker resumes in the middle goes on as if nothing had been, and requests in one batch don't disturb each other.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from typing import Any, TypeAlias

import mlx.core as mx
from mlx_lm.sample_utils import greedy_sampler

from ...ipc.messages import Sampling
from ..errors import InvalidRequest

Sampler: TypeAlias = Callable[[Any], Any]
"""Log probabilities shaped (1, vocabulary) to token ids shaped (1,). Called once for each position, in order."""

GREEDY: Sampler = greedy_sampler
COLDEST = 1e-4
"""Lower temperatures are greedy to all float32 can tell, and dividing by them overflows."""


def check(sampling: Sampling) -> None:
    """Raise InvalidRequest for values that can't be meant."""
    if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
        raise InvalidRequest(f"temperature is {sampling.temperature}; give a number from 0", field="temperature")
    if not 0 < sampling.top_p <= 1:
        raise InvalidRequest(f"top_p is {sampling.top_p}; give more than 0 and at most 1", field="top_p")


def sampler_for(sampling: Sampling, position: int) -> Sampler:
    """A sampler whose first call chooses the token at `position`, counted from the answer's first token.

    Greedy requests share one function, by which the batch generator knows that it may call it once for all.
    """
    if sampling.temperature < COLDEST:
        return GREEDY
    seed = int.from_bytes(os.urandom(8), "little") if sampling.seed is None else sampling.seed
    return SeededSampler(sampling.temperature, sampling.top_p, seed, position)


class SeededSampler:
    """Samples each position with a key of its own.

    Args:
        temperature: Above 0.
        top_p: The smallest set of likeliest tokens with at least this probability is kept. Like mlx-lm's, it looks
            at the probabilities before the temperature is applied.
        seed: Any integer; its low 64 bits count.
        position: Of the first call.
    """

    def __init__(self, temperature: float, top_p: float, seed: int, position: int) -> None:
        self._inverse = 1.0 / temperature
        self._top_p = top_p
        self._seed = (seed % (1 << 64)).to_bytes(8, "little")
        self._position = position

    def __call__(self, logprobs: Any) -> Any:
        """Choose the token of the next position."""
        logprobs = logprobs.astype(mx.float32)
        if self._top_p < 1:
            logprobs = nucleus(logprobs, self._top_p)
        key = mx.random.key(self._key())
        self._position += 1
        return mx.random.categorical(logprobs * self._inverse, key=key)

    def _key(self) -> int:
        # Hashed, for neighbouring positions and seeds shall have nothing in common.
        position = self._position.to_bytes(8, "little")
        return int.from_bytes(hashlib.blake2b(self._seed + position, digest_size=8).digest(), "little")


def nucleus(logprobs: Any, top_p: float) -> Any:
    """Log probabilities with all tokens outside the nucleus at minus infinity; the likeliest always stays."""
    ranked = mx.sort(logprobs, axis=-1)
    probabilities = mx.exp(ranked)
    above = mx.cumsum(probabilities, axis=-1, reverse=True, inclusive=False)
    dropped = (above >= top_p).sum(axis=-1, keepdims=True)
    least = mx.take_along_axis(ranked, mx.minimum(dropped, ranked.shape[-1] - 1), axis=-1)
    return mx.where(logprobs < least, -math.inf, logprobs)
