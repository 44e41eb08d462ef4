"""Choosing the next token."""

from __future__ import annotations

import math

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


@pytest.mark.parametrize("temperature", [-0.1, math.nan, math.inf])
def test_impossible_temperature(temperature: float) -> None:
    """A temperature below 0, or no number, is refused by name."""
    with pytest.raises(InvalidRequest, match="temperature"):
        check(Sampling(temperature=temperature))


@pytest.mark.parametrize("top_p", [0.0, -1.0, 1.1, math.nan])
def test_impossible_top_p(top_p: float) -> None:
    """A top_p that isn't above 0 and at most 1 is refused by name."""
    with pytest.raises(InvalidRequest, match="top_p"):
        check(Sampling(top_p=top_p))
