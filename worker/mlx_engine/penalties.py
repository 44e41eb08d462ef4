"""What the answer has already said, and what the client wants more or less of, in the logits.

In this order: repetition penalty, presence and frequency penalty, bias. All of it is arithmetic on the device;
nothing waits for a token to be known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from ...ipc.messages import Sampling


class Penalties:
    """Of one sequence.

    Args:
        sampling: The request's.
        prompt: Token ids of the prompt; they count for the repetition penalty only.
        answer: Token ids of the answer so far.
        width: Of the logits.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int], answer: Sequence[int], width: int) -> None:
        self._sampling = sampling
        self._listens = _has_penalty(sampling)
        self._counts = _counted(answer, width)
        self._seen = (_counted(prompt, width) + self._counts) > 0 if sampling.repetition_penalty != 1 else None
        self._bias = _bias(sampling.logit_bias, width)

    @staticmethod
    def wanted(sampling: Sampling) -> bool:
        """Whether they would change anything."""
        return _has_penalty(sampling) or bool(sampling.logit_bias)

    def heard(self, token: Any) -> None:
        """The answer goes on with a token: an array of one id, which need not be evaluated."""
        if not self._listens:
            return  # nothing would ever evaluate the counts, and they would grow into an endless expression
        self._counts = self._counts.at[token].add(1.0)
        if self._seen is not None:
            self._seen = mx.logical_or(self._seen, self._counts > 0)

    def __call__(self, logits: Any) -> Any:
        """Logits shaped (1, vocabulary) with penalties and bias, of the same type."""
        result = logits.astype(mx.float32)
        if self._seen is not None:
            factor = self._sampling.repetition_penalty
            result = mx.where(self._seen, mx.where(result > 0, result / factor, result * factor), result)
        if self._sampling.presence_penalty:
            result = result - self._sampling.presence_penalty * (self._counts > 0)
        if self._sampling.frequency_penalty:
            result = result - self._sampling.frequency_penalty * self._counts
        if self._bias is not None:
            result = result + self._bias
        return result.astype(logits.dtype)


def _has_penalty(sampling: Sampling) -> bool:
    return (sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty) != (0, 0, 1)


def _counted(tokens: Sequence[int], width: int) -> mx.array:
    counts = mx.zeros((width,))
    return counts.at[mx.array(list(tokens))].add(1.0) if tokens else counts


def _bias(bias: dict[int, float], width: int) -> mx.array | None:
    if not bias:
        return None
    return mx.zeros((width,)).at[mx.array(list(bias))].add(mx.array(list(bias.values())))
