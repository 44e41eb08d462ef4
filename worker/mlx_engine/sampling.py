"""Choosing the next token from its logits.

Randomness depends on the seed and the token's position only, not on a generator's state. So a generation that another
worker resumes in the middle goes on as if nothing had been, and requests in one batch don't disturb each other.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import mlx.core as mx
from mlx_lm.sample_utils import apply_min_p, apply_top_k, greedy_sampler

from ...ipc.messages import Sampling
from ..errors import InvalidRequest

Sampler: TypeAlias = Callable[[Any], Any]
"""Logits shaped (1, vocabulary) to token ids shaped (1,). Called once for each position, in order."""

GREEDY: Sampler = greedy_sampler
"""Of the logits as they are: to normalize them first took 19 of a step's 250 ms (16 sequences of the embedded model
on two cores)."""
COLDEST = 1e-4
"""Lower temperatures are greedy to all float32 can tell, and dividing by them overflows."""

RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "temperature": (lambda value: value >= 0, "a number from 0"),
    "top_p": (lambda value: 0 < value <= 1, "more than 0 and at most 1"),
    "top_k": (lambda value: value >= 0, "a number of tokens, or 0 for all"),
    "min_p": (lambda value: 0 <= value <= 1, "a number from 0 to 1"),
    "presence_penalty": (lambda _: True, "a finite number"),
    "frequency_penalty": (lambda _: True, "a finite number"),
    "repetition_penalty": (lambda value: value > 0, "more than 0; 1 is none"),
}
"""What each field may be, and in words."""


class Shape(NamedTuple):
    """All of a seeded sampler but its randomness."""

    temperature: float
    top_p: float
    min_p: float
    top_k: int


def check(sampling: Sampling, vocabulary: int) -> None:
    """Raise InvalidRequest for values that can't be meant."""
    for field, (allowed, words) in RANGES.items():
        value = getattr(sampling, field)
        if not (math.isfinite(value) and allowed(value)):
            raise InvalidRequest(f"{field} is {value}; give {words}", field=field)
    for token, bias in sampling.logit_bias.items():
        if not 0 <= token < vocabulary:
            last = vocabulary - 1
            raise InvalidRequest(
                f"logit_bias has the token id {token}; give ids from 0 to {last}", field="logit_bias"
            )
        if not math.isfinite(bias):
            raise InvalidRequest(f"logit_bias of token {token} is {bias}; give a finite number", field="logit_bias")


def sampler_for(sampling: Sampling, position: int) -> Sampler:
    """A sampler whose first call chooses the token at `position`, counted from the answer's first token.

    Greedy requests share one function, by which a batch of them is known.
    """
    if sampling.temperature < COLDEST:
        return GREEDY
    seed = int.from_bytes(os.urandom(8), "little") if sampling.seed is None else sampling.seed
    return SeededSampler(sampling, seed, position)


class SeededSampler:
    """Samples each position with a key of its own.

    Like mlx-lm's own samplers, it looks at the probabilities before the temperature is applied: first the smallest
    set of likeliest tokens with at least `top_p` is kept, of these the ones with at least `min_p` times the likeliest
    one's probability, of these the `top_k` likeliest. Then the temperature, and the draw.

    Args:
        sampling: Checked; the temperature is above 0.
        seed: Any integer; its low 64 bits count.
        position: Of the first call.
    """

    def __init__(self, sampling: Sampling, seed: int, position: int) -> None:
        self.shape = Shape(sampling.temperature, sampling.top_p, sampling.min_p, sampling.top_k)
        self._seed = (seed % (1 << 64)).to_bytes(8, "little")
        self._position = position

    def __call__(self, logits: Any) -> Any:
        """Choose the token of the next position."""
        return drawn([self], logits)

    def noise(self, width: int) -> Any:
        """Gumbel noise shaped (1, width) for the next position."""
        # Hashed, for neighbouring positions and seeds shall have nothing in common.
        position = self._position.to_bytes(8, "little")
        self._position += 1
        key = int.from_bytes(hashlib.blake2b(self._seed + position, digest_size=8).digest(), "little")
        return mx.random.gumbel((1, width), key=mx.random.key(key))


def sample_each(samplers: Sequence[Sampler], logits: Any) -> Any:
    """One token for each row of logits, by the row's sampler; alike ones work on their rows together."""
    groups: dict[Shape | None, list[int]] = {}
    for place, sampler in enumerate(samplers):
        groups.setdefault(sampler.shape if isinstance(sampler, SeededSampler) else None, []).append(place)
    chosen = []
    for places in groups.values():
        rows = logits if len(groups) == 1 else logits[mx.array(places)]
        seeded = [sampler for place in places if isinstance(sampler := samplers[place], SeededSampler)]
        chosen.append(drawn(seeded, rows) if seeded else GREEDY(rows))
    if len(chosen) == 1:
        return chosen[0]
    order = [place for places in groups.values() for place in places]
    return mx.concatenate(chosen)[mx.array([order.index(place) for place in range(len(order))])]


def drawn(samplers: Sequence[SeededSampler], logits: Any) -> Any:
    """One token for each row, by samplers of one shape. A row's token is the same in any company."""
    shape, width = samplers[0].shape, logits.shape[-1]
    logprobs = (logits - mx.logsumexp(logits, axis=-1, keepdims=True)).astype(mx.float32)
    if shape.top_p < 1:
        logprobs = nucleus(logprobs, shape.top_p)
    if shape.min_p:
        logprobs = apply_min_p(logprobs, shape.min_p)
    if 0 < shape.top_k < width:
        logprobs = apply_top_k(logprobs, shape.top_k)
    noise = mx.concatenate([sampler.noise(width) for sampler in samplers])
    return mx.argmax(logprobs * (1.0 / shape.temperature) + noise, axis=-1)


def nucleus(logprobs: Any, top_p: float) -> Any:
    """Log probabilities with all tokens outside the nucleus at minus infinity; the likeliest always stays."""
    ranked = mx.sort(logprobs, axis=-1)
    probabilities = mx.exp(ranked)
    above = mx.cumsum(probabilities, axis=-1, reverse=True, inclusive=False)
    dropped = (above >= top_p).sum(axis=-1, keepdims=True)
    least = mx.take_along_axis(ranked, mx.minimum(dropped, ranked.shape[-1] - 1), axis=-1)
    return mx.where(logprobs < least, -math.inf, logprobs)
