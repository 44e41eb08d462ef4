"""A head that computes the last position only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model

from stoker.worker.mlx_engine.head import HEAD, narrow
from tests.fakes.driven_core import DrivenCore
from tests.fakes.tiny_models import Kind

TOKENS = mx.array([[33 + (7 * index) % 90 for index in range(40)] for _ in range(3)])


class Own(nn.Module):  # type: ignore[misc]
    """A model with a head of its own, quantized or not, below a module of another name."""

    def __init__(self, *, bits: int | None) -> None:
        super().__init__()
        self.text = nn.Module()
        self.text.embed = nn.Embedding(300, 64)
        self.text.lm_head = nn.Linear(64, 300, bias=False)
        if bits:
            nn.quantize(self, bits=bits)

    def __call__(self, tokens: Any) -> Any:
        return self.text.lm_head(self.text.embed(tokens))


class Nameless(nn.Module):  # type: ignore[misc]
    """A model whose head nobody could find."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(300, 64)
        self.out = nn.Linear(64, 300)

    def __call__(self, tokens: Any) -> Any:
        return self.out(self.embed(tokens))


def embeddings(model: Any) -> Iterator[Any]:
    return (module for module in model.modules() if isinstance(module, nn.Embedding | nn.QuantizedEmbedding))


@pytest.fixture(params=["llama", "sliding", "hybrid", "quantized", "own", "own, quantized"])
def model(request: pytest.FixtureRequest, tiny_model: Callable[[Kind], Path]) -> Any:
    """Tied and untied heads, quantized and not."""
    match request.param:
        case "own":
            return Own(bits=None)
        case "own, quantized":
            return Own(bits=4)
        case "quantized":
            tied = load_model(tiny_model("llama"))[0]
            nn.quantize(tied, bits=4)
            return tied
        case kind:
            return load_model(tiny_model(kind))[0]


def test_last_position_is_as_before(model: Any) -> None:
    """A narrowed model gives the last position's logits, of each row, and no others."""
    whole = model(TOKENS)
    narrow(model, embeddings(model))
    narrowed = model(TOKENS)

    assert narrowed.shape == (3, 1, whole.shape[-1])
    assert mx.allclose(narrowed, whole[:, -1:, :], atol=1e-4).item()


def test_weights_stay_where_they_are(model: Any) -> None:
    """Narrowing leaves names and arrays of the weights as they were, and each layer the kind that it is."""
    before = dict(tree_flatten(model.parameters()))
    kinds = [kind for _, module in model.named_modules() for kind in type(module).__mro__]
    narrow(model, embeddings(model))

    assert dict(tree_flatten(model.parameters())).keys() == before.keys()
    assert set(kinds) <= {kind for _, module in model.named_modules() for kind in type(module).__mro__}


def test_embedding_beside_a_head_is_left_alone() -> None:
    """Where there is a head, the embedding is not touched: whatever else it is used for has all positions."""
    model = Own(bits=None)
    narrow(model, embeddings(model))

    assert model.text.embed.as_linear(mx.zeros((1, 5, 64))).shape == (1, 5, 300)
    assert HEAD in model.text


def test_unknown_head_is_no_harm() -> None:
    """A model whose head is not found computes all positions, as before."""
    model = Nameless()
    narrow(model, [])

    assert model(TOKENS).shape == (3, 40, 300)


def test_loaded_models_are_narrow(tiny_model: Callable[[Kind], Path]) -> None:
    """The engine narrows what it loads, and knows it."""
    loaded = DrivenCore(tiny_model("hybrid")).scheduler.loaded

    assert loaded.narrow
    assert loaded.model(TOKENS).shape[1] == 1


def test_model_that_stays_wide_is_known_as_such(
    tiny_model: Callable[[Kind], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where narrowing finds nothing, the engine knows that each position costs logits."""
    monkeypatch.setattr("stoker.worker.mlx_engine.loading.narrow", lambda _model, _embeddings: None)

    assert not DrivenCore(tiny_model("llama")).scheduler.loaded.narrow
