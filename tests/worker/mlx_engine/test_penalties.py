"""Penalties and bias in the logits."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.ipc.messages import Sampling
from stoker.worker.mlx_engine.penalties import Penalties

WIDTH = 12
TOKENS = st.lists(st.integers(0, WIDTH - 1), max_size=20)
SIZES = st.floats(-3, 3, width=32)
SAMPLINGS = st.builds(
    Sampling,
    presence_penalty=SIZES,
    frequency_penalty=SIZES,
    repetition_penalty=st.floats(0.25, 4, width=32),
    logit_bias=st.dictionaries(st.integers(0, WIDTH - 1), SIZES, max_size=4),
)


def reference(sampling: Sampling, prompt: list[int], answer: list[int], logits: list[float]) -> list[float]:
    """The definition, one token at a time."""
    result = []
    for token, logit in enumerate(logits):
        value = logit
        if token in prompt or token in answer:
            value = value / sampling.repetition_penalty if value > 0 else value * sampling.repetition_penalty
        if token in answer:
            value -= sampling.presence_penalty + sampling.frequency_penalty * answer.count(token)
        result.append(value + sampling.logit_bias.get(token, 0.0))
    return result


@given(sampling=SAMPLINGS, prompt=TOKENS, answer=TOKENS, cut=st.integers(0, 20), data=st.data())
def test_penalties_are_what_their_definition_says(
    sampling: Sampling, prompt: list[int], answer: list[int], cut: int, data: st.DataObject
) -> None:
    """Whatever part of the answer was there at the start and what was heard, the logits are as defined."""
    logits = data.draw(st.lists(st.floats(-9, 9, width=32), min_size=WIDTH, max_size=WIDTH))
    penalties = Penalties(sampling, prompt, answer[:cut], WIDTH)
    for token in answer[cut:]:
        penalties.heard(mx.array([token]))

    np.testing.assert_allclose(
        np.array(penalties(mx.array([logits])))[0], reference(sampling, prompt, answer, logits), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("sampling", "wanted"),
    [(Sampling(), False), (Sampling(temperature=1.0, top_k=3), False), (Sampling(presence_penalty=0.1), True),
     (Sampling(frequency_penalty=-1.0), True), (Sampling(repetition_penalty=1.1), True),
     (Sampling(logit_bias={1: 0.0}), True)],
)  # fmt: skip
def test_they_are_made_only_where_wanted(sampling: Sampling, wanted: bool) -> None:
    """A request without penalties and bias has none, so that its batch can be sampled in one call."""
    assert Penalties.wanted(sampling) is wanted


def test_the_type_stays() -> None:
    """Logits of half precision stay so: else a neighbour in the batch would be computed more precisely."""
    penalties = Penalties(Sampling(presence_penalty=1.0), [], [1], WIDTH)

    assert penalties(mx.zeros((1, WIDTH), dtype=mx.bfloat16)).dtype == mx.bfloat16
