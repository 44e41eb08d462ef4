"""Prefixes outlive their worker: the next one restores what an earlier one computed, and gives the same answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.ipc.messages import StoreFigures, Warm, Warmed, WarmPrefix
from tests.fakes.driven_core import DrivenCore, chat
from tests.fakes.tiny_models import Kind

Kinds = Callable[[Kind], Path]

SYSTEM = "You are the keeper of a store. Whatever is put into it comes out of it as it was, or not at all. " * 3


class Worker(DrivenCore):
    """A core with a store, and its life's end."""

    def __init__(self, model: Path, store: Path, **limits: Any) -> None:
        super().__init__(model, store_dir=str(store), **limits)

    @property
    def store(self) -> StoreFigures:
        figures = self.core._figures().store
        assert figures is not None
        return figures

    def warmed(self, **how: Any) -> Warmed:
        result = self.finish(self.submit(Warm(prefixes=(WarmPrefix(name="system", system=SYSTEM),), **how))).result
        assert isinstance(result, Warmed)
        return result

    def end(self) -> None:
        self.core.close(20.0)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "prefixes"


def saved(model: Path, store: Path) -> Warmed:
    """What a worker warms, saves, and leaves behind."""
    worker = Worker(model, store)
    warmed = worker.warmed()
    worker.end()
    assert worker.store.saved == 1
    return warmed


@pytest.mark.parametrize("kind", ["llama", "sliding", "hybrid"])
def test_restored_equals_cold(tiny_model: Kinds, store: Path, kind: Kind) -> None:
    """Of every cache kind, a restored prefix gives the very tokens of a cold request, and saves its prefill."""
    first = saved(tiny_model(kind), store)
    cold = DrivenCore(tiny_model(kind)).generate(chat(SYSTEM, "what is in it?", 20))
    worker = Worker(tiny_model(kind), store)

    report = worker.warmed().prefixes[0]
    answer = worker.generate(chat(SYSTEM, "what is in it?", 20))

    assert (first.prefixes[0].source, report.source) == ("prefilled", "restored")
    assert report.tokens_warm == report.tokens == answer.finished.usage.cached_tokens
    assert answer.tokens == cold.tokens
    assert (worker.store.restored, worker.store.notes) == (1, ())


def test_nothing_is_restored_where_that_is_not_wanted(tiny_llama: Path, store: Path) -> None:
    """Told not to restore, because a worker died of it, a worker computes."""
    saved(tiny_llama, store)

    assert Worker(tiny_llama, store).warmed(restore=False).prefixes[0].source == "prefilled"


@pytest.mark.parametrize("damage", ["flipped", "zeroed", "cut", "swapped"])
def test_damage_is_computed_again_and_told(tiny_llama: Path, store: Path, damage: str) -> None:
    """A file that is not what was saved is never served: the prefix is computed again, and the reason is told."""
    saved(tiny_llama, store)
    (data,) = store.glob("*.safetensors")
    content = bytearray(data.read_bytes())
    if damage == "flipped":
        content[-100] ^= 1
    elif damage == "zeroed":
        content[-1000:] = bytes(1000)
    elif damage == "cut":
        del content[-1000:]
    else:
        content = bytearray(b"another file")
    data.write_bytes(content)
    worker = Worker(tiny_llama, store)

    report = worker.warmed().prefixes[0]
    answer = worker.generate(chat(SYSTEM, "what is in it?", 12))

    assert report.source == "prefilled"
    assert any("system was not restored" in note for note in worker.store.notes)
    assert answer.tokens == DrivenCore(tiny_llama).generate(chat(SYSTEM, "what is in it?", 12)).tokens


def test_changed_weights_are_noticed(tiny_llama: Path, store: Path, tmp_path: Path) -> None:
    """At the same path, with other weights of the same size, nothing is restored, and the reason is told."""
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    saved(model, store)
    weights = next(model.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-8:] = content[-16:-8]
    weights.write_bytes(content)
    worker = Worker(model, store)

    assert worker.warmed().prefixes[0].source == "prefilled"
    assert any("weights" in note for note in worker.store.notes)


def test_changed_template_is_noticed(tiny_llama: Path, store: Path, tmp_path: Path) -> None:
    """With another chat template nothing is restored, even where its tokens would be the same."""
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    saved(model, store)
    config = model / "tokenizer_config.json"
    fields = json.loads(config.read_text(encoding="utf-8"))
    fields["chat_template"] += "{# another #}"
    config.write_text(json.dumps(fields), encoding="utf-8")
    worker = Worker(model, store)

    assert worker.warmed().prefixes[0].source == "prefilled"
    assert any("template" in note for note in worker.store.notes)


def test_a_budget_of_nothing_keeps_nothing(tiny_llama: Path, store: Path) -> None:
    """Switched off, no folder is made, and the figures say that there is none."""
    worker = Worker(tiny_llama, store, store_bytes=0)
    worker.warmed()
    worker.end()

    assert worker.core._figures().store is None
    assert not store.exists()


def test_no_room_is_told_and_harms_nothing(tiny_llama: Path, store: Path) -> None:
    """A budget too small for the prefix leaves it warm, and says that it is not saved."""
    worker = Worker(tiny_llama, store, store_bytes=10_000)

    assert worker.warmed().outcome == "succeeded"
    worker.end()
    assert any("over budget" in note for note in worker.store.notes)
    assert worker.store.bytes <= 10_000


def test_the_model_s_files_gone_is_no_reason_not_to_serve(
    tiny_llama: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose files can't be read any more after loading is served without a store."""

    def gone(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("gone")

    monkeypatch.setattr("stoker.worker.mlx_engine.disk.identify", gone)
    worker = Worker(tiny_llama, store)

    assert worker.warmed().outcome == "succeeded"
    assert worker.core._figures().store is None
