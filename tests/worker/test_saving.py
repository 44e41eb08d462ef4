"""Saving in the background: nobody waits, the newest wins, and what fails is counted by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stoker.worker.saving import MOST_WAITING, Saver
from stoker.worker.store import PrefixStore
from stoker.worker.store_results import Draft, NotSaved, Saved
from tests.fakes.prefix_files import payload, served, store_in

DEADLINE = 30.0


class Gate:
    """A writer of bytes that waits until it is let through; remembers what it wrote."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        self.written: list[bytes] = []

    def __call__(self, kv: Any, path: Path) -> None:
        self.entered.set()
        assert self.open.wait(DEADLINE)
        if isinstance(kv, Exception):
            raise kv
        self.written.append(kv)
        path.write_bytes(kv)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def store(tmp_path: Path) -> PrefixStore:
    return store_in(tmp_path / "kv")


Make = Callable[..., Saver]


@pytest.fixture
def make(store: PrefixStore, gate: Gate) -> Iterator[Make]:
    """Makes savers around the gate, and ends them; what still waits then is let go, not written."""
    made: list[Saver] = []

    def saver(**options: Any) -> Saver:
        made.append(Saver(store, gate, **options))
        return made[-1]

    yield saver
    for one in made:
        one.close(0)
    gate.open.set()
    for one in made:
        one._thread.join(DEADLINE)
        assert not one._thread.is_alive()


def draft(*tokens: int, name: str | None = None, size: int = 5000) -> Draft:
    return Draft(tokens, size, 1.0, name)


def test_what_is_submitted_is_on_disk_after_a_flush(store: PrefixStore, gate: Gate, make: Make) -> None:
    """Submitting returns at once, before anything is written; after a flush it is stored."""
    saver = make()
    assert saver.submit(draft(1, 2), payload((1, 2)))
    assert store.find((1, 2)) is None
    assert not saver.flush(0)
    gate.open.set()

    assert saver.flush(DEADLINE)
    assert served(store, store.key((1, 2))) == payload((1, 2))
    assert saver.figures().waiting == 0


def test_the_newest_of_a_name_is_written(store: PrefixStore, gate: Gate, make: Make) -> None:
    """Of several values for one name that wait only the last is written, in the first one's turn."""
    saver = make()
    saver.submit(draft(0), b"busy")
    assert gate.entered.wait(DEADLINE)
    saver.submit(draft(1, name="system"), b"part")
    saver.submit(draft(9, name="other"), b"other")
    saver.submit(draft(1, 2, name="system"), b"whole")
    gate.open.set()

    assert saver.flush(DEADLINE)
    assert gate.written == [b"busy", b"whole", b"other"]
    assert store.find((1,)) is None


def test_waiting_bytes_are_bounded(gate: Gate, make: Make) -> None:
    """What would make too many bytes wait is refused and counted; one prefix is taken however big it is."""
    saver = make(limit_bytes=100)
    assert saver.submit(draft(1, size=1000), b"big")
    assert gate.entered.wait(DEADLINE)
    assert not saver.submit(draft(2, size=10), b"late")
    assert saver.figures().refused == 1
    assert saver.figures().waiting_bytes == 1000
    gate.open.set()
    assert saver.flush(DEADLINE)
    assert saver.submit(draft(2, size=10), b"again")


def test_a_newer_value_needs_no_more_room_than_the_older(gate: Gate, make: Make) -> None:
    """A value that takes an older one's place in the queue takes over its bytes too."""
    saver = make(limit_bytes=100)
    saver.submit(draft(0, size=10), b"busy")
    assert gate.entered.wait(DEADLINE)
    assert saver.submit(draft(1, name="system", size=80), b"old")
    assert saver.submit(draft(1, name="system", size=90), b"new")
    assert not saver.submit(draft(2, size=20), b"other")


def test_waiting_jobs_are_bounded(gate: Gate, make: Make) -> None:
    """However small, only so many prefixes wait."""
    saver = make()
    saver.submit(draft(0), b"busy")
    assert gate.entered.wait(DEADLINE)
    taken = [saver.submit(draft(number, size=0), b"") for number in range(1, MOST_WAITING + 5)]

    assert taken == [True] * MOST_WAITING + [False] * 4
    assert saver.figures().refused == 4


@pytest.mark.parametrize("error", [RuntimeError("mlx"), OSError("disk"), ValueError("ours")])
def test_failures_are_counted_and_survived(error: Exception, store: PrefixStore, gate: Gate, make: Make) -> None:
    """One prefix that can't be written is counted by its reason; the next one is saved."""
    gate.open.set()
    saver = make()
    saver.submit(draft(1), error)
    saver.submit(draft(2), b"good")

    assert saver.flush(DEADLINE)
    assert saver.figures().failed == {"write failed": 1}
    assert store.find((2,)) is not None


def test_results_are_told(gate: Gate, make: Make) -> None:
    """Whoever asked is told of each result, saved or not."""
    told: list[tuple[Draft, Saved | NotSaved]] = []
    gate.open.set()
    saver = make(done=lambda what, result: told.append((what, result)))
    saver.submit(draft(1), b"good")
    saver.submit(draft(2), RuntimeError("bad"))

    assert saver.flush(DEADLINE)
    assert [(what.tokens, type(result)) for what, result in told] == [((1,), Saved), ((2,), NotSaved)]


def test_a_save_waits_for_a_calm_moment(gate: Gate, make: Make) -> None:
    """While somebody would be disturbed nothing is written, however often it looks; then it is."""
    calm, looked = threading.Event(), threading.Event()
    looks: list[bool] = []

    def look() -> bool:
        looks.append(gate.entered.is_set())
        if len(looks) >= 3:
            looked.set()
        return calm.is_set()

    make(calm=look).submit(draft(1, 2), payload((1, 2)))
    assert looked.wait(DEADLINE)
    calm.set()

    assert gate.entered.wait(DEADLINE)
    assert not any(looks)


def test_patience_has_an_end(gate: Gate, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is never idle keeps nothing off the disk for ever."""
    monkeypatch.setattr("stoker.worker.saving.PATIENCE", 0.0)
    make(calm=lambda: False).submit(draft(1, 2), payload((1, 2)))

    assert gate.entered.wait(DEADLINE)


def test_closing_waits_for_no_calm(store: PrefixStore, gate: Gate, make: Make) -> None:
    """What waits for a calm moment when the worker leaves is written at once."""
    gate.open.set()
    saver = make(calm=lambda: False)
    saver.submit(draft(1, 2), payload((1, 2)))

    assert saver.close(DEADLINE)
    assert store.find((1, 2)) is not None


def test_closing_writes_what_waits(store: PrefixStore, gate: Gate, make: Make) -> None:
    """Closing with enough time saves everything, ends the thread, and takes nothing more."""
    saver = make()
    saver.submit(draft(1), b"one")
    saver.submit(draft(2), b"two")
    gate.open.set()

    assert saver.close(DEADLINE)
    assert not saver._thread.is_alive()
    assert {entry.tokens for entry in store.entries()} == {(1,), (2,)}
    assert not saver.submit(draft(3), b"three")


def test_closing_gives_up_in_time(gate: Gate, make: Make) -> None:
    """A disk that hangs holds up nobody: closing returns at its deadline and says that something is missing."""
    saver = make()
    saver.submit(draft(1), b"one")
    saver.submit(draft(2), b"two")
    assert gate.entered.wait(DEADLINE)

    assert not saver.close(0)
    gate.open.set()
    saver._thread.join(DEADLINE)
    assert gate.written == [b"one"]


def test_other_work_is_done_in_its_turn(gate: Gate, make: Make) -> None:
    """Slow work with the store is done after the saves before it; what it raises is counted by type."""
    order: list[str] = []
    saver = make(done=lambda what, _result: order.append(str(what.tokens)))

    def fail() -> None:
        order.append("fail")
        raise KeyError("x")

    saver.submit(draft(1), b"one")
    assert saver.call("fail", fail)
    assert saver.call("verify", lambda: order.append("verify"))
    gate.open.set()

    assert saver.flush(DEADLINE)
    assert order == ["(1,)", "fail", "verify"]
    assert saver.figures().failed == {"KeyError": 1}


def test_kv_is_let_go_once_it_is_saved(gate: Gate, make: Make) -> None:
    """The saver keeps no reference to KV that it has written: its memory is the cache's again."""
    import gc  # noqa: PLC0415 - only here
    import weakref  # noqa: PLC0415

    class Layers(bytearray):
        pass

    kv = Layers(b"layers")
    reference = weakref.ref(kv)
    gate.written = _Forgetful()
    gate.open.set()
    saver = make()
    saver.submit(draft(1), kv)
    del kv

    assert saver.flush(DEADLINE)
    gc.collect()
    assert reference() is None


class _Forgetful(list[bytes]):
    def append(self, _item: bytes, /) -> None:
        pass
