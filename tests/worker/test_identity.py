"""What a stored prefix is bound to: a change of any of it is noticed, and named."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.worker import identity as subject
from stoker.worker.identity import Identity, identify, weights_digest

BIG = 3 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's directory; its weights are larger than what the tests below sample."""
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder / "config.json", {"hidden_size": 64, "quantization": {"bits": 4}})
    write(folder / "tokenizer_config.json", {"tokenizer_class": "Fast", "chat_template": "{{ messages }}"})
    write(folder / "tokenizer.json", {"model": "BPE"})
    write(folder / "generation_config.json", {"eos_token_id": 2})
    header = json.dumps({"w": {"dtype": "U8", "shape": [BIG], "data_offsets": [0, BIG]}}).encode()
    data = random.Random(1).randbytes(BIG)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    return folder


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def of(folder: Path, **said: Any) -> Identity:
    return identify(folder, **{"model": "tiny", "layout": "2 x KVCache", "device": "cpu", **said})


def edit(folder: Path, name: str, how: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads((folder / name).read_bytes())
    how(value)
    write(folder / name, value)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "template in the tokenizer's configuration": (
        lambda folder: edit(folder, "tokenizer_config.json", lambda value: value.update(chat_template="other")),
        "template changed",
    ),
    "template in a file of its own": (
        lambda folder: (folder / "chat_template.jinja").write_text("other"),
        "template changed",
    ),
    "tokenizer": (lambda folder: write(folder / "tokenizer.json", {"model": "Unigram"}), "tokenizer changed"),
    "merges": (lambda folder: (folder / "merges.txt").write_text("a b"), "tokenizer changed"),
    "quantization": (
        lambda folder: edit(folder, "config.json", lambda value: value.update(quantization={"bits": 8})),
        "quantization changed",
    ),
    "configuration": (
        lambda folder: edit(folder, "config.json", lambda value: value.update(rope_theta=1e6)),
        "config changed",
    ),
    "something else": (lambda folder: write(folder / "processor.json", {}), "other files changed"),
    "one byte of the weights' header": (
        lambda folder: rewrite(folder, lambda data: data.replace(b"U8", b"I8", 1)),
        "weights changed",
    ),
    "weights added": (lambda folder: (folder / "model-2.safetensors").write_bytes(bytes(100)), "weights changed"),
    "weights gone": (lambda folder: (folder / "model.safetensors").unlink(), "weights changed"),
    "weights touched": (lambda folder: os.utime(folder / "model.safetensors", (1, 1)), "weights changed"),
}


def rewrite(folder: Path, how: Callable[[bytes], bytes]) -> None:
    """Change weights so that size and time are what they were."""
    path = folder / "model.safetensors"
    before = path.stat()
    path.write_bytes(how(path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_each_change_has_its_name(change: tuple[Callable[[Path], object], str], folder: Path) -> None:
    """A change at the same path is noticed, and the reason names the one part that changed."""
    before = of(folder)
    change[0](folder)
    after = of(folder)

    assert after.difference(before.model, before.parts) == change[1]
    assert after.digest != before.digest


def test_nothing_changed_is_no_difference(folder: Path) -> None:
    """The same directory has the same identity each time."""
    assert of(folder).difference("tiny", of(folder).parts) is None
    assert of(folder).digest == of(folder).digest


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"layout": "3 x KVCache"}, "kv layout changed (2 x KVCache then, 3 x KVCache now)"),
        ({"device": "gpu"}, "device changed (cpu then, gpu now)"),
        ({"extra": {"template override": "x"}}, "template override changed"),
    ],
)
def test_what_runs_the_model_is_bound_too(said: dict[str, Any], reason: str, folder: Path) -> None:
    """KV layout, device and what the configuration adds are parts like the files."""
    before = of(folder)

    assert of(folder, **said).difference(before.model, before.parts) == reason


def test_engine_versions_are_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an upgrade of mlx or mlx-lm the reason shows both versions."""
    before = of(folder)
    monkeypatch.setattr(subject, "version", lambda _package: "99")
    reason = of(folder).difference("tiny", before.parts)

    assert reason is not None
    assert reason.startswith("engine changed (mlx ")
    assert reason.endswith("mlx 99, mlx-lm 99 now)")


def test_an_adapter_is_bound(folder: Path, tmp_path: Path) -> None:
    """An adapter that comes, goes or is trained further makes another identity."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapters.safetensors").write_bytes(bytes(1000))
    write(adapter / "adapter_config.json", {"rank": 8})
    without, first = of(folder), of(folder, adapter=adapter)
    (adapter / "adapters.safetensors").write_bytes(bytes(999) + b"1")
    second = of(folder, adapter=adapter)

    assert first.difference("tiny", without.parts) == "adapter changed"
    assert second.difference("tiny", first.parts) == "adapter changed"


def test_weights_trained_anew_are_noticed(folder: Path) -> None:
    """Weights all different, of the same size, time and header, can't be missed, however little is sampled."""
    before = weights_digest([folder / "model.safetensors"], sampled=0)
    rewrite(folder, lambda data: data[:200] + bytes(byte ^ 1 for byte in data[200:]))

    assert weights_digest([folder / "model.safetensors"], sampled=0) != before


@pytest.mark.parametrize("share", [0.0, 0.33, 0.77, 1.0])
def test_a_changed_tensor_is_noticed(share: float, folder: Path) -> None:
    """A change of a fourteenth of the weights, wherever it is, is met by one of even the fewest samples."""
    before = weights_digest([folder / "model.safetensors"], sampled=0)
    size = BIG // 14
    start = 200 + int(share * (BIG - size - 200))
    rewrite(folder, lambda data: data[:start] + bytes(size) + data[start + size :])

    assert weights_digest([folder / "model.safetensors"], sampled=0) != before


def test_samples_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the weights are, only so many bytes of them are read."""
    read: list[int] = []
    pread = os.pread

    def counted(descriptor: int, count: int, offset: int) -> bytes:
        data = pread(descriptor, count, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counted)
    weights_digest([folder / "model.safetensors"], sampled=256 << 10)

    assert 200 << 10 < sum(read) < 300 << 10


def test_a_model_that_is_gone_has_no_identity(tmp_path: Path) -> None:
    """Weights that vanish while they are read raise OSError, instead of making some identity."""
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        of(tmp_path)


def test_a_damaged_configuration_still_has_an_identity(folder: Path) -> None:
    """What isn't JSON counts as it is written: the model's loader will complain, not this."""
    (folder / "config.json").write_text("{not json")
    first = of(folder)
    (folder / "config.json").write_text("{not json either")

    assert of(folder).difference("tiny", first.parts) == "config changed"
