"""Prefill of one sequence, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model

from stoker.worker.mlx_engine.prefill import (
    ALL_LOGITS,
    FIRST_CHUNK,
    LARGEST_CHUNK,
    SMALLEST_CHUNK,
    TAIL,
    Pace,
    Prefill,
)
from tests.fakes.tiny_models import Kind

TOKENS = [33 + (7 * index) % 90 for index in range(200)]


def whole(model: Any, tokens: list[int]) -> Any:
    return model(mx.array(tokens)[None], cache=make_prompt_cache(model))[:, -1, :]


@pytest.fixture
def llama(tiny_llama: Path) -> Any:
    return load_model(tiny_llama)[0]


class FixedPace(Pace):
    """A pace that has measured this once, and learns no more."""

    def __init__(self, tokens_per_second: float) -> None:
        super().__init__()
        super().measured(LARGEST_CHUNK, LARGEST_CHUNK / tokens_per_second)

    def measured(self, tokens: int, seconds: float) -> None:
        pass


@pytest.mark.parametrize("kind", ["llama", "sliding", "hybrid"])
@pytest.mark.parametrize("speed", [34.0, 100.0, 10_000.0])
def test_chunks_change_nothing(tiny_model: Callable[[Kind], Path], kind: Kind, speed: float) -> None:
    """Whatever the chunks' size, the last logits are those of one forward."""
    model = load_model(tiny_model(kind))[0]
    prefill = Prefill(model, TOKENS, pace=FixedPace(speed))
    logits = None
    while prefill.remaining:
        assert logits is None
        logits = prefill.step()

    assert logits is not None
    assert mx.allclose(logits, whole(model, TOKENS), atol=1e-4).item()


def test_prefill_goes_on_from_a_cache(llama: Any) -> None:
    """With a KV cache of the first tokens, only the rest is computed."""
    first = Prefill(llama, TOKENS[:150], pace=FixedPace(10_000))
    while first.remaining:
        first.step()
    rest = Prefill(llama, TOKENS, first.kv, 150, pace=FixedPace(10_000))

    assert rest.remaining == 50
    logits = rest.step()
    assert logits is not None
    assert mx.allclose(logits, whole(llama, TOKENS), atol=1e-4).item()


def test_step_stops_where_it_is_told(llama: Any) -> None:
    """A step with `upto` goes no further, gives no logits there, and does nothing once there."""
    prefill = Prefill(llama, TOKENS, pace=FixedPace(10_000))

    assert [prefill.step(upto=30), prefill.done] == [None, 30]
    assert [prefill.step(upto=30), prefill.done] == [None, 30]


def test_logits_of_many_positions_are_not_computed(llama: Any) -> None:
    """A chunk that would end a long prompt leaves a tail, for the head computes logits for each position."""
    prefill = Prefill(llama, TOKENS, pace=FixedPace(10_000))

    prefill.step()

    assert prefill.done == len(TOKENS) - TAIL


def test_narrow_model_leaves_no_tail(llama: Any) -> None:
    """Where the last position's logits are all that is computed, the last chunk is one forward, however long."""
    prefill = Prefill(llama, TOKENS, pace=FixedPace(10_000), narrow=True)

    logits = prefill.step()

    assert logits is not None
    assert mx.allclose(logits, whole(llama, TOKENS), atol=1e-4).item()


def test_narrow_model_leaves_no_stub(llama: Any) -> None:
    """A rest of a few tokens goes with the chunk before it: a forward of its own would read all weights for them."""
    prefill = Prefill(llama, TOKENS[: 100 + TAIL - 1], pace=FixedPace(200), narrow=True)

    assert prefill.step() is not None


def test_short_suffix_is_one_forward(llama: Any) -> None:
    """What is left is one forward when it is short, however small the chunks are otherwise."""
    assert Prefill(llama, TOKENS[:ALL_LOGITS], pace=FixedPace(100)).step() is not None


@pytest.mark.parametrize(("done", "kv"), [(-1, None), (300, []), (5, None)])
def test_impossible_start_is_refused(llama: Any, done: int, kv: list[Any] | None) -> None:
    """A start outside the tokens, or without the KV that it claims, is an error."""
    with pytest.raises(ValueError, match="doesn't fit"):
        Prefill(llama, TOKENS, kv, done)


def test_chunk_follows_budget_and_speed() -> None:
    """A chunk has the tokens that fit the time, within bounds."""
    assert Pace().chunk(0.5) == FIRST_CHUNK
    assert FixedPace(200).chunk(0.5) == 100
    assert FixedPace(1).chunk(0.5) == SMALLEST_CHUNK
    assert FixedPace(1e9).chunk(0.5) == LARGEST_CHUNK


def test_chunk_grows_at_most_twofold() -> None:
    """After one fast chunk the next is at most twice as long."""
    fast = Pace()
    fast.measured(64, 0.001)

    assert fast.chunk(0.5) == 128


def test_stub_says_nothing_about_speed() -> None:
    """A chunk shorter than the smallest leaves the measured speed as it was."""
    known = Pace()
    known.measured(100, 1.0)
    known.measured(3, 1.0)

    assert known.tokens_per_second == 100
