"""KV on disk: what comes back computes the very same, for each kind of layer; anything else is refused."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import (
    ArraysCache,
    CacheList,
    ChunkedKVCache,
    KVCache,
    QuantizedKVCache,
    RotatingKVCache,
    make_prompt_cache,
)

from stoker.worker.mlx_engine.persist import PersistError, file_size, layout, load, persistable, save
from stoker.worker.store_results import Draft, Opened, Saved
from tests.fakes.filled_kv import filled, tokens_of
from tests.fakes.prefix_files import store_in
from tests.fakes.tiny_models import Kind, greedy

Loaded = Callable[[Kind], tuple[Any, Any]]

KINDS: tuple[Kind, ...] = ("llama", "sliding", "hybrid")
LENGTHS = (1, 20, 64, 65, 255, 256, 300, 513)
"""Below, at and above the window of 64, and the steps of 256 in which arrays grow."""


def quantized(model: Any, bits: int = 8) -> list[Any]:
    return [QuantizedKVCache(group_size=32, bits=bits) for _ in make_prompt_cache(model)]


def same_logits(model: Any, first: list[Any], second: list[Any]) -> bool:
    """Bit for bit, over a suffix of several tokens and a single one."""
    for suffix in ([5, 6, 7], [8]):
        logits = [model(mx.array(suffix)[None], cache=kv) for kv in (first, second)]
        if not mx.array_equal(*logits):
            return False
    return True


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_restored_computes_as_resident(kind: Kind, length: int, tiny_loaded: Loaded, tmp_path: Path) -> None:
    """Logits after a restore are bit for bit those without, and so are greedy tokens, for each kind of model."""
    model, _ = tiny_loaded(kind)
    kv, path = filled(model, tokens_of(length)), tmp_path / "kv.safetensors"
    save(kv, path)
    restored = load(path, make_prompt_cache(model), length)

    assert layout(restored) == layout(kv)
    assert path.stat().st_size <= file_size(kv)
    answer = greedy(model, [9, 10], 12, copy.deepcopy(restored))
    assert answer == greedy(model, [9, 10], 12, copy.deepcopy(kv)) == greedy(model, [*tokens_of(length), 9, 10], 12)
    assert same_logits(model, copy.deepcopy(kv), restored)


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_that_went_round_is_restored(kind: Kind, tiny_loaded: Loaded, tmp_path: Path) -> None:
    """KV left by single-token steps, whose window has wrapped in place, computes the same after a restore."""
    model, _ = tiny_loaded(kind)
    for length in (40, 64, 90, 130):
        kv, path = filled(model, tokens_of(length), chunk=1), tmp_path / "kv.safetensors"
        save(kv, path)
        assert same_logits(model, copy.deepcopy(kv), load(path, make_prompt_cache(model), length))


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_kv_is_restored(bits: int, tiny_loaded: Loaded, tmp_path: Path) -> None:
    """Quantized KV computes the same after a restore, and is refused where another quantization is in use."""
    model = wide_heads()
    kv, path = filled(model, tokens_of(300), quantized(model, bits)), tmp_path / "kv.safetensors"
    save(kv, path)
    restored = load(path, quantized(model, bits), 300)

    assert layout(restored) == layout(kv)
    assert same_logits(model, copy.deepcopy(kv), restored)
    with pytest.raises(PersistError, match="bits"):
        load(path, quantized(model, 12 - bits), 300)
    with pytest.raises(PersistError, match="not of the class KVCache"):
        load(path, make_prompt_cache(model), 300)


def test_lists_of_caches_are_restored(tmp_path: Path) -> None:
    """Layers that hold several caches, as some models' do, come back with each of them."""

    def layers() -> list[Any]:
        return [CacheList(KVCache(), RotatingKVCache(max_size=8)), CacheList(ArraysCache(2), KVCache())]

    kv, path = layers(), tmp_path / "kv.safetensors"
    for layer in (kv[0][0], kv[0][1], kv[1][1]):
        layer.update_and_fetch(mx.random.normal((1, 2, 20, 4)), mx.random.normal((1, 2, 20, 4)))
    kv[1][0][1] = mx.random.normal((1, 3))
    save(kv, path)
    restored = load(path, layers(), 20)

    assert layout(restored) == layout(kv)
    for own, other in zip(_arrays(kv), _arrays(restored), strict=True):
        assert mx.array_equal(own, other)
    assert restored[1][0][0] is None


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_comes_back_as_it_was(dtype: mx.Dtype, tmp_path: Path) -> None:
    """Half-precision KV keeps its dtype and bits."""
    kv, path = [KVCache()], tmp_path / "kv.safetensors"
    kv[0].update_and_fetch(*(mx.random.normal((1, 2, 20, 4)).astype(dtype) for _ in range(2)))
    save(kv, path)
    (layer,) = load(path, kv, 20)

    assert layer.keys.dtype == dtype
    assert mx.array_equal(layer.keys, kv[0].keys[..., :20, :])


def test_only_the_tokens_are_stored(tiny_loaded: Loaded, tmp_path: Path) -> None:
    """Room for more tokens isn't written: the file is as large as the tokens' KV and a header."""
    model, _ = tiny_loaded("llama")
    kv = filled(model, tokens_of(260))
    save(kv, tmp_path / "kv.safetensors")
    used = sum(layer.nbytes for layer in kv) * 260 // kv[0].keys.shape[2]

    assert used < (tmp_path / "kv.safetensors").stat().st_size <= file_size(kv) < used + 4096


def test_saving_changes_nothing(tiny_loaded: Loaded, tmp_path: Path) -> None:
    """KV is only read: its arrays are the same objects afterwards, with their room."""
    model, _ = tiny_loaded("llama")
    kv = filled(model, tokens_of(20))
    before = [(layer.keys, layer.values, layer.offset) for layer in kv]
    save(kv, tmp_path / "kv.safetensors")

    assert all(
        layer.keys is keys and layer.values is values for layer, (keys, values, _) in zip(kv, before, strict=True)
    )
    assert kv[0].keys.shape[2] == 256


def test_another_thread_may_save_while_this_one_computes(tiny_loaded: Loaded, tmp_path: Path) -> None:
    """An I/O thread writes evaluated KV while the engine's thread goes on from copies of it."""
    model, _ = tiny_loaded("llama")
    kv, errors = filled(model, tokens_of(300)), list[BaseException]()

    def saving() -> None:
        try:
            for number in range(10):
                save(kv, tmp_path / f"{number}.safetensors")
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            errors.append(error)

    thread = threading.Thread(target=saving)
    thread.start()
    expected = greedy(model, [9], 6, copy.deepcopy(kv))
    answers = {greedy(model, [9], 6, copy.deepcopy(kv)) for _ in range(5)}
    thread.join()

    assert errors == []
    assert answers == {expected}
    for number in range(10):
        assert greedy(model, [9], 6, load(tmp_path / f"{number}.safetensors", kv, 300)) == expected


def test_what_another_thread_loaded_is_usable_here(tiny_loaded: Loaded, tmp_path: Path) -> None:
    """Loaded KV is evaluated, so it may cross threads."""
    model, _ = tiny_loaded("sliding")
    kv, path, loaded = filled(model, tokens_of(100)), tmp_path / "kv.safetensors", list[Any]()
    save(kv, path)
    thread = threading.Thread(target=lambda: loaded.append(load(path, kv, 100)))
    thread.start()
    thread.join()

    assert same_logits(model, kv, loaded[0])


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (ChunkedKVCache(64), "layers of the class ChunkedKVCache can't be kept on disk"),
        (CacheList(KVCache(), ChunkedKVCache(64)), "layers of the class ChunkedKVCache can't be kept on disk"),
        (ArraysCache(2, left_padding=[1, 0]), "a batch can't be kept on disk"),
    ],
)
def test_kinds_that_cannot_be_kept_say_so(layer: Any, reason: str, tmp_path: Path) -> None:
    """What can't be put together again isn't taken apart: the reason is told before, and by saving."""
    assert persistable([KVCache(), layer]) == reason
    with pytest.raises(PersistError, match=reason):
        save([KVCache(), layer], tmp_path / "kv.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_that_can_be_kept_say_so(kind: Kind, tiny_loaded: Loaded) -> None:
    """Plain, sliding and hybrid models' KV can be kept, full or empty."""
    model, _ = tiny_loaded(kind)

    assert persistable(make_prompt_cache(model)) is None
    assert persistable(filled(model, tokens_of(10))) is None


@pytest.mark.parametrize("kind", KINDS)
def test_through_the_store_and_back(kind: Kind, tiny_loaded: Loaded, tmp_path: Path) -> None:
    """Saved into the store and opened by the next worker, even after it was evicted there, KV is what it was."""
    model, _ = tiny_loaded(kind)
    tokens = tokens_of(150)
    kv = filled(model, tokens)
    result = store_in(tmp_path / "kv").commit(Draft(tokens, file_size(kv), 1.0), lambda path: save(kv, path))
    assert isinstance(result, Saved)
    store = store_in(tmp_path / "kv")
    found = store.find([*tokens, 1, 2])
    assert found is not None
    opened = store.open(found.key)
    assert isinstance(opened, Opened)
    store.clear()
    with opened:
        restored = load(opened.path, kv, opened.entry.length)

    assert same_logits(model, kv, restored)


def test_an_engine_that_fills_the_disk_is_survived(tiny_loaded: Loaded, tmp_path: Path) -> None:
    """A file that mlx can't write whole leaves nothing behind in the store."""
    import resource  # noqa: PLC0415 - only here

    from stoker.worker.store_results import NotSaved  # noqa: PLC0415

    model, _ = tiny_loaded("llama")
    kv, store = filled(model, tokens_of(100)), store_in(tmp_path / "kv")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        result = store.commit(Draft(tokens_of(100), file_size(kv), 1.0), lambda path: save(kv, path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert isinstance(result, NotSaved)
    assert "Unable to write" in result.detail
    assert [path.name for path in (tmp_path / "kv").iterdir()] == ["lock"]


def _arrays(kv: list[Any]) -> list[mx.array]:
    """Keys, values and states of nested layers, without the room for more."""
    found = []
    for layer in kv:
        if isinstance(layer, CacheList):
            found += _arrays(list(layer.caches))
        elif isinstance(layer, ArraysCache):
            found += [array for array in layer.cache if array is not None]
        else:
            found += list(layer.keys_and_values())
    return found


def wide_heads() -> Any:
    """A tiny llama whose heads are wide enough to be quantized."""
    from mlx_lm.models import llama  # noqa: PLC0415 - only here

    mx.random.seed(3)
    arguments = {
        "model_type": "llama",
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": 256,
    }
    return llama.Model(llama.ModelArgs.from_dict(arguments))
