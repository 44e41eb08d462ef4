"""Why a model can't be loaded: each row of the table of faults, on real files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.ipc.errors import ErrorCode
from stoker.worker.errors import ModelUnusable
from stoker.worker.mlx_engine.faults import check_folder, explained
from tests.fakes.driven_core import DrivenCore


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy of a good model, to be damaged."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def config(**changes: Any) -> Callable[[Path], None]:
    """Change keys of config.json; None takes them out."""

    def damage(folder: Path) -> None:
        path = folder / "config.json"
        merged = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in merged.items() if value is not None}))

    return damage


def write(name: str, data: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return damage


def remove(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()

    return damage


def truncate(name: str, share: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return damage


def name_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


WEIGHTS = "model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"

FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "config missing": (remove("config.json"), "config.json is missing"),
    "config truncated": (truncate("config.json", 0.5), "config.json is not JSON"),
    "config no object": (write("config.json", b"[1]"), "config.json is not a JSON object"),
    "config not text": (write("config.json", b"\xff\xfe"), "config.json is not JSON"),
    "no model type": (config(model_type=None), "config.json has no model_type"),
    "unknown model type": (config(model_type="martian"), "config.json can't be used.*martian not supported"),
    "missing key": (config(hidden_size=None), "config.json lacks a key.*'hidden_size'"),
    "wrong type": (config(hidden_size="many"), "config.json"),
    "no heads": (config(num_attention_heads=0), "config.json"),
    "own code": (config(model_file="evil.py"), "evil.py"),
    "more layers": (config(num_hidden_layers=3), "don't fit config.json.*Missing"),
    "fewer layers": (config(num_hidden_layers=1), "don't fit config.json.*not in model"),
    "other shapes": (config(hidden_size=32), "don't fit config.json.*Expected shape"),
    "no weights": (remove(WEIGHTS), "no weights"),
    "weights empty": (write(WEIGHTS, b""), "model.safetensors is truncated or no safetensors"),
    "weights truncated": (truncate(WEIGHTS, 0.9), "model.safetensors is truncated: "),
    "weights' header truncated": (truncate(WEIGHTS, 0.001), "model.safetensors is truncated"),
    "weights garbage": (write(WEIGHTS, b"\x01garbage" * 99), "model.safetensors is truncated or no safetensors"),
    "weights' header garbage": (write(WEIGHTS, b"\x04\0\0\0\0\0\0\0abcd"), "damaged safetensors header"),
    "weights a pointer": (write(WEIGHTS, POINTER), "Git LFS pointer"),
    "shard missing": (name_shard, "model-00002-of-00002.safetensors is missing"),
    "no tokenizer": (remove("tokenizer.json"), "no tokenizer"),
    "tokenizer truncated": (truncate("tokenizer.json", 0.5), "tokenizer.json is not JSON"),
    "tokenizer empty": (write("tokenizer.json", b"{}"), "tokenizer.json is empty"),
    "tokenizer nonsense": (write("tokenizer.json", b'{"model": 3}'), "tokenizer in .* can't be loaded"),
    "tokenizer config truncated": (truncate("tokenizer_config.json", 0.5), "tokenizer_config.json is not JSON"),
}


@pytest.mark.parametrize(("damage", "words"), FAULTS.values(), ids=FAULTS)
def test_damaged_model_is_named(folder: Path, damage: Callable[[Path], None], words: str) -> None:
    """Each kind of damage is a fatal error that names the file at fault, says how to mend it, and kills nothing."""
    damage(folder)
    error = DrivenCore(folder).loading.error

    assert error.code == ErrorCode.MODEL_UNUSABLE
    assert not error.data.retryable
    assert error.data.remedy
    assert re.search(words, error.message)


def test_good_model_has_no_fault(folder: Path) -> None:
    """A whole model passes."""
    check_folder(folder)


def test_unreadable_file_is_named(folder: Path) -> None:
    """A file that the system refuses to read is named with the system's reason."""
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()

    with pytest.raises(ModelUnusable, match="can't be read: Is a directory"):
        check_folder(folder)


def test_long_explanations_are_cut() -> None:
    """A list of a thousand missing parameters becomes one line of bounded length."""
    error = explained(Path("/m"), ValueError("Missing 999 parameters:\n" + "layer.weight,\n" * 999), "weights")

    assert len(error.message) < 700
    assert "\n" not in error.message
