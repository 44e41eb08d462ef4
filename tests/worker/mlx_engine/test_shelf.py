"""What people ask about prefixes on disk, and do to them, through a worker that has the store open."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import (
    CacheClear,
    CacheList,
    CacheVerify,
    Forget,
    Job,
    Noted,
    StoredList,
    Warm,
    WarmPrefix,
)
from stoker.worker.mlx_engine import shelf
from tests.fakes.driven_core import DrivenCore, chat

SYSTEM = "You are the keeper of a store. Whatever is put into it comes out of it as it was, or not at all. "
SECONDS = 20.0


class Worker(DrivenCore):
    """A core with a store, which answers errands on another thread."""

    def errand(self, body: Job) -> Any:
        request = self.submit(body)
        end = time.monotonic() + SECONDS
        while self.answer(request).result is None and time.monotonic() < end:
            self.core.turn()
        return self.answer(request).result

    @property
    def listed(self) -> StoredList:
        result = self.errand(CacheList())
        assert isinstance(result, StoredList)
        return result


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "prefixes"


def filled(model: Path, store: Path) -> Worker:
    """A worker after one that saved two prefixes."""
    first = Worker(model, store_dir=str(store))
    first.warm(WarmPrefix(name="agent", system=SYSTEM * 3), WarmPrefix(name="other", system="Not so. " * 20 + SYSTEM))
    first.core.close(SECONDS)
    return Worker(model, store_dir=str(store))


def test_what_is_stored_is_listed(tiny_llama: Path, store: Path) -> None:
    """Each entry with its name, tokens, size, times and uses, and how much all files take of the budget."""
    worker = filled(tiny_llama, store)
    worker.warm(WarmPrefix(name="agent", system=SYSTEM * 3))
    listed = worker.listed

    assert (listed.folder, listed.budget_bytes) == (str(store), 8 << 30)
    assert listed.bytes == sum(path.stat().st_size for path in store.iterdir() if path.name != "lock")
    assert [(one.name, one.uses, one.foreign, one.set_aside) for one in listed.prefixes] == [
        ("agent", 1, None, None),
        ("other", 0, None, None),
    ]
    assert all(one.tokens > 64 and one.bytes > 0 and one.model == tiny_llama.name for one in listed.prefixes)


def test_what_another_template_left_is_listed_as_foreign(tiny_llama: Path, store: Path, tmp_path: Path) -> None:
    """An entry that can't be used says what has changed; `--foreign` deletes such ones, and no others."""
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    filled(model, store)
    config = model / "tokenizer_config.json"
    fields = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**fields, "chat_template": fields["chat_template"] + "{# x #}"}), encoding="utf-8")
    worker = Worker(model, store_dir=str(store))
    worker.warm(WarmPrefix(name="agent", system=SYSTEM * 3))
    worker.core._disk._saver.flush(SECONDS)  # type: ignore[union-attr]

    assert [(one.name, one.foreign) for one in worker.listed.prefixes].count(("agent", "template changed")) == 1
    assert worker.errand(CacheClear(foreign=True)).count == 2
    assert [(one.name, one.foreign) for one in worker.listed.prefixes] == [("agent", None)]


def test_damage_is_found_by_reading(tiny_llama: Path, store: Path) -> None:
    """A flipped bit is found, its entry deleted and listed as such; by its key one entry alone is read."""
    worker = filled(tiny_llama, store)
    damaged, whole = worker.listed.prefixes
    path = store / f"{damaged.key}.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)

    assert [one.fault for one in worker.errand(CacheVerify(key=whole.key)).prefixes] == [None]
    faults = {one.key: one.fault for one in worker.errand(CacheVerify()).prefixes}
    assert faults == {damaged.key: "the data file's checksum doesn't fit", whole.key: None}
    assert [one.key for one in worker.listed.prefixes] == [whole.key]
    assert [(one.key, one.kind) for one in worker.listed.set_aside] == [(damaged.key, "damaged")]
    assert worker.errand(CacheVerify(key=damaged.key)).prefixes == ()


@pytest.mark.parametrize("by", ["name", "key"])
def test_one_can_be_deleted(tiny_llama: Path, store: Path, by: str) -> None:
    """By its name or its key one entry goes, with all its files, and the next worker computes it."""
    worker = filled(tiny_llama, store)
    entry = next(one for one in worker.listed.prefixes if one.name == "agent")
    cleared = worker.errand(CacheClear(name=entry.name if by == "name" else entry.key))

    assert cleared.count == 1
    assert cleared.bytes >= entry.bytes
    assert [one.name for one in worker.listed.prefixes] == ["other"]
    assert not list(store.glob(f"{entry.key}*"))
    assert worker.errand(CacheClear(name="nobody")).count == 0


def test_all_can_be_deleted(tiny_llama: Path, store: Path) -> None:
    """Everything goes, other models' too; what is warm stays warm."""
    worker = filled(tiny_llama, store)
    worker.warm(WarmPrefix(name="agent", system=SYSTEM * 3))

    assert worker.errand(CacheClear()).count == 2
    assert (worker.listed.prefixes, worker.listed.set_aside, worker.listed.bytes) == ((), (), 0)
    assert worker.warm(WarmPrefix(name="agent", system=SYSTEM * 3)).prefixes[0].source == "resident"


def test_without_a_store_there_is_nothing_to_ask(tiny_llama: Path) -> None:
    """A worker that keeps nothing on disk says so, and how to change it."""
    core = DrivenCore(tiny_llama)
    error = core.answer(core.submit(CacheList())).error

    assert error.code == ErrorCode.UNSUPPORTED
    assert "disk_cache_bytes" in str(error.data.remedy)


def test_a_mistake_of_ours_is_answered(tiny_llama: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks gets an answer, also where the work fails in an unforeseen way, and the next errand is done."""
    worker = filled(tiny_llama, store)

    def broken(*_: Any) -> None:
        raise ValueError("oh")

    monkeypatch.setattr(shelf, "_listed", broken)
    assert worker.errand(CacheList()).code == ErrorCode.INTERNAL_ERROR
    monkeypatch.undo()
    assert len(worker.listed.prefixes) == 2


def test_what_was_learned_can_be_forgotten_after_learning_was_switched_off(tiny_llama: Path, tmp_path: Path) -> None:
    """With `learned_prefixes = 0` all that was learned before can be deleted; single orders are still refused."""
    learning = DrivenCore(tiny_llama, state_dir=str(tmp_path))
    for user in ("a", "b"):
        learning.generate(chat(SYSTEM * 3, user, 1))
    learning.core.close(SECONDS)
    assert any(b"keeper" in path.read_bytes() for path in (tmp_path / "learned").iterdir())
    core = DrivenCore(tiny_llama, state_dir=str(tmp_path), learn=0)

    assert core.answer(core.submit(Forget(name="learned-1"))).error.code == ErrorCode.UNSUPPORTED
    assert core.answer(core.submit(Forget())).result == Noted(count=1)
    assert not any(b"keeper" in path.read_bytes() for path in (tmp_path / "learned").iterdir())


def test_nothing_is_asked_before_a_model_is_loaded(tiny_llama: Path) -> None:
    """Errands before a model is loaded are refused like any other."""
    core = DrivenCore(tiny_llama)
    core.core._scheduler = None

    assert core.answer(core.submit(CacheVerify())).error.code == ErrorCode.NOT_LOADED
    assert core.answer(core.submit(Warm(prefixes=()))).error.code == ErrorCode.NOT_LOADED
