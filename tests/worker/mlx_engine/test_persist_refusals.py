"""KV on disk that is not what it says, or not this model's: refused, with what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

from stoker.worker.mlx_engine.persist import PersistError, load, save
from tests.fakes.filled_kv import filled, tokens_of
from tests.fakes.tiny_models import Kind

Loaded = Callable[[Kind], tuple[Any, Any]]


def test_another_models_kv_is_refused(tiny_loaded: Loaded, tmp_path: Path) -> None:
    """Fewer layers, other classes, other heads, another dtype, another length: each is refused with what is wrong."""
    model, _ = tiny_loaded("llama")
    kv, path = filled(model, tokens_of(20)), tmp_path / "kv.safetensors"
    save(kv, path)
    heads, half = _plain(4, 16), _plain(2, 16, mx.float16)

    for template, tokens, words in (
        (kv[:1], 20, "not the 1 layers"),
        ([*kv, KVCache()], 20, "not the 3 layers"),
        (make_prompt_cache(tiny_loaded("sliding")[0])[:2], 20, "not of the class RotatingKVCache"),
        (heads, 20, "1x4x"),
        (half, 20, "float16"),
        (kv, 21, "holds 20 tokens, not 21"),
    ):
        with pytest.raises(PersistError, match=words):
            load(path, template, tokens)


def test_another_window_is_refused(tmp_path: Path) -> None:
    """A sliding layer with another window isn't taken, though its arrays would fit."""
    path = tmp_path / "kv.safetensors"
    layer = RotatingKVCache(max_size=64)
    layer.update_and_fetch(mx.zeros((1, 2, 20, 4)), mx.zeros((1, 2, 20, 4)))
    save([layer], path)

    with pytest.raises(PersistError, match="has max_size 64, the model 32"):
        load(path, [RotatingKVCache(max_size=32)], 20)


def _rewritten(path: Path, of_arrays: Callable[[dict[str, Any]], object], of_facts: Callable[[Any], object]) -> None:
    loaded: Any = mx.load(str(path), return_metadata=True)
    arrays, metadata = loaded
    mx.eval(arrays)
    facts = json.loads(metadata["layers"])
    of_arrays(arrays)
    of_facts(facts)
    mx.save_safetensors(str(path), arrays, {"layers": json.dumps(facts)})


@pytest.mark.parametrize(
    "how",
    [
        lambda arrays: arrays.pop("0.keys"),
        lambda arrays: arrays.update({"0.more": mx.zeros(1)}),
        lambda arrays: arrays.update({"7.keys": mx.zeros(1)}),
        lambda arrays: arrays.update({"0.keys": mx.zeros((1, 2, 19, 16))}),
        lambda arrays: arrays.update({"0.keys": mx.zeros((1, 2, 20))}),
        lambda arrays: arrays.update({"0.values": mx.zeros((1, 2, 20, 16), mx.float16)}),
    ],
)
def test_files_with_other_arrays_are_refused(how: Any, tiny_loaded: Loaded, tmp_path: Path) -> None:
    """A well-formed file in which an array is missing, too many, or of another shape or dtype, is refused."""
    model, _ = tiny_loaded("llama")
    path, kv = tmp_path / "kv.safetensors", filled(model, tokens_of(20))
    save(kv, path)
    _rewritten(path, how, lambda _facts: None)

    with pytest.raises(PersistError):
        load(path, kv, 20)


@pytest.mark.parametrize(
    "how",
    [
        lambda facts: facts[0].update(offset=10**9),
        lambda facts: facts[0].update(offset=0),
        lambda facts: facts[0].update(offset="x"),
        lambda facts: facts[0].pop("offset"),
        lambda facts: facts[0].update({"class": "Evil"}),
        lambda facts: facts.pop(),
        lambda facts: facts.__setitem__(0, 7),
    ],
)
def test_files_that_say_something_else_are_refused(how: Any, tiny_loaded: Loaded, tmp_path: Path) -> None:
    """A well-formed file whose description doesn't agree with its arrays is refused, without a template's help."""
    model, _ = tiny_loaded("llama")
    path = tmp_path / "kv.safetensors"
    save(filled(model, tokens_of(20)), path)
    _rewritten(path, lambda _arrays: None, how)

    with pytest.raises(PersistError):
        load(path, make_prompt_cache(model), 20)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1, exclude_max=True), garbage=st.booleans())
def test_broken_files_are_refused(cut: float, garbage: bool, tiny_loaded: Loaded, tmp_path: Path) -> None:
    """A file cut anywhere, and bytes that are no safetensors at all, raise the one typed error."""
    model, _ = tiny_loaded("llama")
    path = tmp_path / "kv.safetensors"
    save(filled(model, tokens_of(20)), path)
    data = path.read_bytes()
    kept = int(cut * len(data))
    path.write_bytes(data[kept:] if garbage and kept else data[:kept])

    with pytest.raises(PersistError):
        load(path, make_prompt_cache(model), 20)


def test_a_missing_file_is_refused(tiny_loaded: Loaded, tmp_path: Path) -> None:
    """A path where nothing is raises the typed error, not mlx's."""
    with pytest.raises(PersistError):
        load(tmp_path / "nothing", make_prompt_cache(tiny_loaded("llama")[0]), 1)


def _plain(heads: int, dimension: int, dtype: mx.Dtype = mx.float32) -> list[Any]:
    layers = [KVCache(), KVCache()]
    for layer in layers:
        layer.update_and_fetch(*(mx.zeros((1, heads, 3, dimension), dtype) for _ in range(2)))
    return layers
