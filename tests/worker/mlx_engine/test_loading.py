"""Loading a model, and its self-test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import Load
from stoker.worker.errors import ModelUnusable
from stoker.worker.mlx_engine import loading
from stoker.worker.mlx_engine.loading import load
from tests.fakes.driven_core import DrivenCore
from tests.fakes.tiny_models import CONTEXT, VOCABULARY, Kind


def silent(*news: Any) -> None:
    """No progress wanted."""


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def body(model: Path, **limits: Any) -> Load:
    return Load(model=str(model), cache_dir="/nonexistent", **limits)


@pytest.mark.parametrize(
    ("kind", "trimmable", "per_token"), [("llama", True, 512), ("sliding", False, 1024), ("hybrid", False, 512)]
)
def test_traits_are_measured(tiny_model: Callable[[Kind], Path], kind: Kind, trimmable: bool, per_token: int) -> None:
    """The self-test tells the traits: float32 keys and values of two heads of 16 for each attention layer."""
    loaded = load(body(tiny_model(kind)), silent)

    assert loaded.name == f"tiny-{kind}"
    assert (loaded.context, loaded.vocabulary) == (CONTEXT, VOCABULARY)
    assert (loaded.trimmable, loaded.batchable) == (trimmable, True)
    assert loaded.cost.per_token == per_token


def test_progress_comes_in_small_steps(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are read in groups, each of which is reported, so that a big model's load shows life."""
    monkeypatch.setattr(loading, "STEP_BYTES", 50_000)
    seen: list[tuple[str, int, int]] = []
    load(body(tiny_llama), lambda *news: seen.append(news))
    steps = [done for stage, done, total in seen[1:] if stage == "load"]

    assert steps == list(range(len(steps)))
    assert len(steps) > 4


@pytest.mark.parametrize(("limit", "context"), [(None, CONTEXT), (100, 100), (1 << 20, CONTEXT)])
def test_context_is_the_models_own_or_less(tiny_llama: Path, limit: int | None, context: int) -> None:
    """The configured context can shorten the model's own, not lengthen it."""
    assert load(body(tiny_llama, context_tokens=limit), silent).context == context


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(folder: Path, bad: float) -> None:
    """A model with NaN or infinite weights answers without any error, so the self-test refuses it."""
    weights: Any = mx.load(str(folder / "model.safetensors"))
    name = "model.layers.0.mlp.down_proj.weight"
    weights[name] = mx.full(weights[name].shape, bad)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)

    with pytest.raises(ModelUnusable, match="not finite"):
        load(body(folder), silent)


def test_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    """A tokenizer that knows more ids than the model has rows would kill the process at some prompt."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][-1], "id": VOCABULARY, "content": "<extra>"})
    path.write_text(json.dumps(tokenizer))

    with pytest.raises(ModelUnusable, match=f"has the id {VOCABULARY} \\('<extra>'\\)"):
        load(body(folder), silent)


def test_second_load_is_refused(tiny_llama: Path) -> None:
    """A worker holds one model; another load leaves it as it is."""
    core = DrivenCore(tiny_llama)
    again = core.finish(core.submit(body(tiny_llama)))

    assert again.error.code == ErrorCode.INVALID_PARAMS


def test_failed_load_can_be_repeated(folder: Path, tiny_llama: Path) -> None:
    """After a load that failed, the worker stays up and takes another."""
    (folder / "config.json").unlink()
    core = DrivenCore(folder)

    assert core.loading.error.code == ErrorCode.MODEL_UNUSABLE
    assert core.finish(core.submit(body(tiny_llama))).result.model == tiny_llama.name
