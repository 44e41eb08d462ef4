"""What is stored serves more than the warmup that stored it: changed tails, and requests that nobody warmed for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.ipc.messages import StoreFigures, Warm, Warmed, WarmPrefix
from stoker.worker.mlx_engine import disk, persist
from tests.fakes.driven_core import DrivenCore, chat
from tests.fakes.tiny_models import Kind

Kinds = Callable[[Kind], Path]

BEGIN = "You are the keeper of a store. Whatever is put into it comes out of it as it was, or not at all. " * 2
OLD = BEGIN + "Today the store is closed, so say no to all who come, and be kind about it. " * 3
NEW = BEGIN + "Tomorrow it opens. Say yes to everyone who asks."


class Worker(DrivenCore):
    """A core with a store."""

    def __init__(self, model: Path, store: Path, **limits: Any) -> None:
        super().__init__(model, store_dir=str(store), **limits)

    @property
    def store(self) -> StoreFigures:
        figures = self.core._figures().store
        assert figures is not None
        return figures

    def warmed(self, system: str, **how: Any) -> Warmed:
        result = self.finish(self.submit(Warm(prefixes=(WarmPrefix(name="agent", system=system),), **how))).result
        assert isinstance(result, Warmed)
        return result


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "prefixes"


def saved(model: Path, store: Path, system: str) -> int:
    """Warm and save a prompt; returns its tokens."""
    worker = Worker(model, store)
    report = worker.warmed(system).prefixes[0]
    worker.core.close(20.0)
    assert worker.store.saved == 1
    return report.tokens


@pytest.mark.parametrize("kind", ["llama", "sliding", "hybrid"])
def test_a_changed_tail_is_computed_alone(tiny_model: Kinds, store: Path, kind: Kind) -> None:
    """Of a stored prompt whose end was rewritten the common beginning is restored where KV can be cut; else none is.

    Either way the answer is the cold one.
    """
    saved(tiny_model(kind), store, OLD)
    cold = DrivenCore(tiny_model(kind)).generate(chat(NEW, "may I come in?", 8))
    worker = Worker(tiny_model(kind), store)

    report = worker.warmed(NEW).prefixes[0]
    answer = worker.generate(chat(NEW, "may I come in?", 8))

    assert report.source == ("restored" if kind == "llama" else "prefilled")
    assert worker.store.restored == (kind == "llama")
    assert report.tokens_warm == report.tokens == answer.finished.usage.cached_tokens
    assert answer.tokens == cold.tokens


def test_the_changed_prompt_takes_the_old_one_s_place(tiny_llama: Path, store: Path) -> None:
    """What was computed beyond the common part is saved, and the next worker restores the new prompt whole."""
    saved(tiny_llama, store, OLD)
    second = Worker(tiny_llama, store)
    second.warmed(NEW)
    second.core.close(20.0)

    assert (second.store.entries, second.store.saved) == (1, 1)
    assert Worker(tiny_llama, store).warmed(NEW).prefixes[0].source == "restored"


@pytest.mark.parametrize("kind", ["llama", "sliding", "hybrid"])
def test_a_request_restores_what_nobody_warmed(tiny_model: Kinds, store: Path, kind: Kind) -> None:
    """A worker that warmed nothing reads a stored prefix when the first request wants it, with the cold answer."""
    tokens = saved(tiny_model(kind), store, OLD)
    cold = DrivenCore(tiny_model(kind)).generate(chat(OLD, "may I come in?", 8))
    worker = Worker(tiny_model(kind), store)

    first = worker.generate(chat(OLD, "may I come in?", 8))
    again = worker.generate(chat(OLD, "may I come in?", 8))

    assert first.finished.usage.cached_tokens >= tokens
    assert first.tokens == again.tokens == cold.tokens
    assert worker.store.restored == 1 + (again.finished.usage.cached_tokens == tokens)


def test_a_small_part_is_not_worth_reading_a_large_file(
    tiny_llama: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where less than a quarter of an entry is of use nothing is read."""
    saved(tiny_llama, store, OLD)
    monkeypatch.setattr(disk, "LEAST_SHARE", 0.99)
    worker = Worker(tiny_llama, store)

    assert worker.warmed(NEW).prefixes[0].source == "prefilled"
    assert worker.store.restored == 0


def test_nothing_is_read_after_workers_died_of_it(tiny_llama: Path, store: Path) -> None:
    """Warmed without restoring, a worker doesn't restore for requests either."""
    saved(tiny_llama, store, OLD)
    worker = Worker(tiny_llama, store)
    worker.warmed("Another prompt.", restore=False)

    assert worker.generate(chat(OLD, "may I come in?", 1)).finished.usage.cached_tokens < 64
    assert worker.store.restored == 0


def test_answers_go_on_while_a_prefix_is_read(tiny_llama: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a rewarm reads a file, however slow the disk is, a running answer gets its tokens."""
    saved(tiny_llama, store, OLD)
    released = threading.Event()
    load = persist.load

    def slow(*args: Any) -> Any:
        assert released.wait(60)
        return load(*args)

    monkeypatch.setattr(persist, "load", slow)
    worker = Worker(tiny_llama, store)
    running = worker.submit(chat("Talk.", "go on", 20))
    rewarm = worker.submit(Warm(prefixes=(WarmPrefix(name="agent", system=OLD),)))

    assert len(worker.finish(running).tokens) == 20
    assert worker.answer(rewarm).result is None
    released.set()
    assert worker.finish(rewarm).result.prefixes[0].source == "restored"


def test_a_warmup_given_up_while_reading_ends_at_once(
    tiny_llama: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that hangs doesn't hold up the end of a warmup whose time is over."""
    saved(tiny_llama, store, OLD)
    released = threading.Event()
    monkeypatch.setattr(persist, "load", lambda *_: released.wait(60))
    worker = Worker(tiny_llama, store)
    request = worker.submit(Warm(prefixes=(WarmPrefix(name="agent", system=OLD),)))
    worker.core.turn()
    worker.core.cancel(request)

    report = worker.answer(request).result.prefixes[0]
    assert (report.tokens_warm, report.source) == (0, "none")
    assert "given up" in report.note
    released.set()


def test_an_unforeseen_failure_of_reading_is_that_prefix_s_fault(
    tiny_llama: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong on the reading thread is reported as the prefix's fault, and the worker serves on."""
    saved(tiny_llama, store, OLD)

    def broken(*_: Any) -> None:
        raise MemoryError("no")

    monkeypatch.setattr(persist, "load", broken)
    worker = Worker(tiny_llama, store)

    assert worker.warmed(OLD).outcome == "failed"
    monkeypatch.undo()
    assert worker.generate(chat(OLD, "may I come in?", 3)).finished.reason == "length"


def test_the_next_prefix_is_read_meanwhile_and_loaded_alone(
    tiny_llama: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one prefix is loaded the next is compared already; never are two loaded at once, so one can be blamed."""
    prefixes = tuple(WarmPrefix(name=text[:3], system=text) for text in (OLD, "No. " + OLD, "Yes " + OLD))
    first = Worker(tiny_llama, store)
    first.warm(*prefixes)
    first.core.close(20.0)
    worker = Worker(tiny_llama, store)
    assert worker.core._disk is not None
    opened: list[str] = []
    second_opened = threading.Event()
    loading: list[int] = []
    load, open_ = persist.load, worker.core._disk._store.open

    def observed(*args: Any) -> Any:
        loading.append(len(list(store.glob("*.restoring"))))
        assert second_opened.wait(60)
        return load(*args)

    def noted(key: str) -> Any:
        result = open_(key)
        opened.append(key)
        if len(opened) == 2:
            second_opened.set()
        return result

    monkeypatch.setattr(persist, "load", observed)
    monkeypatch.setattr(worker.core._disk._store, "open", noted)
    warmed = worker.warm(*prefixes)

    assert [one.source for one in warmed.prefixes] == ["restored"] * 3
    assert loading == [1, 1, 1]
    assert worker.store.restored == 3


def test_a_few_missing_tokens_are_computed_not_read(tiny_llama: Path, store: Path) -> None:
    """Where nearly all of a stored prefix is resident already its file is not read for the rest."""
    saved(tiny_llama, store, OLD)
    worker = Worker(tiny_llama, store)
    worker.core._disk.restores = False  # type: ignore[union-attr]
    worker.generate(chat(OLD[:-20], "so?", 1))
    worker.core._disk.restores = True  # type: ignore[union-attr]

    assert worker.warmed(OLD).outcome == "succeeded"
    assert worker.store.restored == 0


def test_a_request_is_computed_where_reading_fails_in_an_unforeseen_way(
    tiny_llama: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file, whatever is wrong with it, fails a request."""
    saved(tiny_llama, store, OLD)
    monkeypatch.setattr(persist, "load", lambda *_: 1 / 0)
    worker = Worker(tiny_llama, store)

    assert worker.generate(chat(OLD, "may I come in?", 3)).finished.usage.cached_tokens == 0
