"""Choosing the next token."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import pytest

from stoker.ipc.messages import Sampling
from stoker.worker.errors import InvalidRequest
from stoker.worker.mlx_engine.sampling import check, nucleus, sampler_for

LOGPROBS = mx.log(mx.array([[0.5, 0.25, 0.15, 0.1]]))
FLAT = mx.zeros((1, 1000)) - math.log(1000)


def drawn(sampling: Sampling, position: int, count: int) -> list[int]:
    sampler = sampler_for(sampling, position)
    return [int(sampler(FLAT).item()) for _ in range(count)]


def test_greedy_requests_share_one_function() -> None:
    """All greedy samplers are one object, by which a batch is sampled in one call, and it takes the likeliest."""
    assert sampler_for(Sampling(), 0) is sampler_for(Sampling(temperature=1e-6), 5)
    assert sampler_for(Sampling(), 0)(LOGPROBS).item() == 0


def test_draws_depend_on_seed_and_position_only() -> None:
    """A sampler that begins at a later position draws what the first would have drawn there."""
    sampling = Sampling(temperature=1.0, seed=7)
    full = drawn(sampling, 0, 20)

    assert [drawn(sampling, cut, 20 - cut) for cut in range(20)] == [full[cut:] for cut in range(20)]
    assert len(set(full)) > 10


def test_seeds_differ() -> None:
    """Other seeds, and none, give other draws; a seed of any size is taken."""
    seeds = [1, 2, -1, 1 << 80, None, None]
    draws = {tuple(drawn(Sampling(temperature=1.0, seed=seed), 0, 8)) for seed in seeds}

    assert len(draws) == len(seeds)


def test_mlx_own_randomness_plays_no_part() -> None:
    """The global random state changes nothing."""
    sampling = Sampling(temperature=1.0, seed=7)
    mx.random.seed(1)
    first = drawn(sampling, 0, 8)
    mx.random.seed(2)

    assert drawn(sampling, 0, 8) == first


def test_frequencies_follow_the_probabilities() -> None:
    """Over many positions, tokens come about as often as their probability says."""
    sampler = sampler_for(Sampling(temperature=1.0, seed=3), 0)
    counts = [0] * 4
    for _ in range(2000):
        counts[int(sampler(LOGPROBS).item())] += 1

    assert [round(count / 2000, 1) for count in counts] == pytest.approx([0.5, 0.25, 0.15, 0.1], abs=0.06)


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, 1), (0.5, 1), (0.6, 2), (0.8, 3), (0.95, 4), (1e-9, 1)])
def test_nucleus_is_the_smallest_set(top_p: float, kept: int) -> None:
    """The likeliest tokens stay until their probability reaches top_p; one always stays."""
    logprobs = nucleus(LOGPROBS, top_p)

    assert mx.isfinite(logprobs).sum().item() == kept
    assert mx.isfinite(logprobs)[0, :kept].all().item()


def test_low_temperature_sharpens() -> None:
    """At a low temperature the likeliest token comes nearly always."""
    sampler = sampler_for(Sampling(temperature=0.05, seed=3), 0)

    assert {int(sampler(LOGPROBS).item()) for _ in range(50)} == {0}


IMPOSSIBLE: list[dict[str, Any]] = [
    *({"temperature": value} for value in (-0.1, math.nan, math.inf)),
    *({"top_p": value} for value in (0.0, -1.0, 1.1, math.nan)),
    {"top_k": -1},
    *({"min_p": value} for value in (-0.1, 1.5, math.nan)),
    {"presence_penalty": math.nan},
    {"frequency_penalty": math.inf},
    *({"repetition_penalty": value} for value in (0.0, -1.0, math.inf)),
    *({"logit_bias": {token: bias}} for token, bias in ((-1, 1.0), (4, 1.0), (1, math.nan))),
]


@pytest.mark.parametrize("values", IMPOSSIBLE, ids=repr)
def test_impossible_values(values: dict[str, Any]) -> None:
    """A value that can't be meant is refused, with the field's name."""
    (field,) = values
    with pytest.raises(InvalidRequest, match=field) as refusal:
        check(Sampling(**values), vocabulary=4)

    assert refusal.value.data.field == field


def test_limits_are_allowed() -> None:
    """The outermost values that can be meant are taken."""
    check(Sampling(min_p=1.0, top_k=10**6, top_p=1.0, logit_bias={0: -100.0, 3: 100.0}), vocabulary=4)
    check(Sampling(presence_penalty=-2.0, frequency_penalty=2.0, repetition_penalty=0.1), vocabulary=4)


def kept(**how: Any) -> set[int]:
    """Which tokens of four are ever drawn."""
    sampler = sampler_for(Sampling(temperature=5.0, seed=1, **how), 0)
    return {int(sampler(LOGPROBS).item()) for _ in range(200)}


def test_only_so_many_are_drawn() -> None:
    """`top_k` and `min_p` leave the likeliest, together only what both leave; a top_k beyond the vocabulary all."""
    assert kept() == kept(top_k=4) == kept(top_k=99) == {0, 1, 2, 3}
    assert kept(top_k=1) == {0}
    assert kept(top_k=2) == {0, 1}
    assert kept(min_p=0.29) == {0, 1, 2}
    assert kept(min_p=1.0) == {0}
    assert kept(min_p=0.29, top_k=2, top_p=0.99) == {0, 1}
