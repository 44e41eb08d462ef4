"""Comparing before anybody asks: it saves the time, and lets nothing through that comparing later would not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from stoker.worker import store_reader
from stoker.worker.store_ahead import GOOD_SECONDS, Ahead
from stoker.worker.store_files import sha256
from tests.fakes.prefix_files import identity, payload, saved, served, store_in

TOKENS = tuple(range(1000, 1064))
MODEL = identity().model


def compared(folder: Path, model: str = MODEL, most_bytes: int = 1 << 30) -> Ahead:
    """All comparisons done."""
    ahead = Ahead(folder, model, most_bytes)
    ahead._begun.result()
    ahead._thread.shutdown()
    return ahead


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Descriptors that the reader compares itself."""
    seen: list[int] = []

    def compared_now(descriptor: int) -> str:
        seen.append(descriptor)
        return sha256(descriptor)

    monkeypatch.setattr(store_reader, "sha256", compared_now)
    return seen


def test_what_was_compared_is_not_compared_again(tmp_path: Path, hashed: list[int]) -> None:
    """A pinned prefix that was compared ahead is served at once; the next time it is compared as always."""
    key = saved(store_in(tmp_path), TOKENS, pinned=True)
    store = store_in(tmp_path, ahead=compared(tmp_path))

    assert served(store, key) == payload(TOKENS)
    assert not hashed
    assert served(store, key) == payload(TOKENS)
    assert len(hashed) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_damage_is_found(tmp_path: Path, when: str) -> None:
    """Data that changed before or after it was compared is never served, though size and time are what they were."""
    key = saved(store_in(tmp_path), TOKENS, pinned=True)
    data = tmp_path / f"{key}.safetensors"

    def damage() -> None:
        before = data.stat()
        while data.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of files ticks every few milliseconds
            with data.open("r+b") as file:
                file.write(b"\0" * 100)
            os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))

    if when == "before":
        damage()
    store = store_in(tmp_path, ahead=compared(tmp_path))
    if when == "after":
        damage()

    assert served(store, key) == "the data file's checksum doesn't fit"
    assert not store.entries()


def test_another_file_in_its_place_is_compared(tmp_path: Path) -> None:
    """A file that took the place of the compared one is compared itself."""
    key = saved(store_in(tmp_path), TOKENS, pinned=True)
    store = store_in(tmp_path, ahead=compared(tmp_path))
    data = tmp_path / f"{key}.safetensors"
    wrong = tmp_path / "wrong"
    wrong.write_bytes(bytes(data.stat().st_size))
    wrong.rename(data)

    assert served(store, key) == "the data file's checksum doesn't fit"


def test_only_what_will_be_wanted_is_read(tmp_path: Path) -> None:
    """Of this model and pinned, the last used first, up to the limit: nothing else is read."""
    first = store_in(tmp_path)
    old = saved(first, TOKENS, pinned=True)
    new = saved(first, TOKENS[:50], pinned=True)
    saved(first, TOKENS[:40])
    saved(store_in(tmp_path, bound_to=identity("another")), TOKENS, pinned=True)
    for at, key in enumerate((old, new)):
        os.utime(tmp_path / f"{key}.json", (at, at))

    assert set(compared(tmp_path)._proofs) == {old, new}
    assert set(compared(tmp_path, most_bytes=9_999)._proofs) == {new}
    served(first, old)
    assert set(compared(tmp_path, most_bytes=9_999)._proofs) == {old}


@pytest.mark.parametrize("place", ["nothing", "file"])
def test_a_store_that_cannot_be_read(tmp_path: Path, place: str) -> None:
    """Where there is no store, or something else, nothing is compared and nothing raised."""
    (tmp_path / "file").write_bytes(b"")

    assert not compared(tmp_path / place)._proofs


def test_what_was_compared_long_ago_is_compared_again(
    tmp_path: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison that nobody used for minutes proves nothing any more."""
    key = saved(store_in(tmp_path), TOKENS, pinned=True)
    store = store_in(tmp_path, ahead=compared(tmp_path))
    now = time.monotonic() + GOOD_SECONDS + 1
    monkeypatch.setattr("stoker.worker.store_ahead.time.monotonic", lambda: now)

    assert served(store, key) == payload(TOKENS)
    assert len(hashed) == 1


def test_verifying_reads_it_whatever_was_compared(tmp_path: Path, hashed: list[int]) -> None:
    """Who has the store verified is told what is on the disk now."""
    saved(store_in(tmp_path), TOKENS, pinned=True)
    store = store_in(tmp_path, ahead=compared(tmp_path))

    assert [verified.fault for verified in store.verify()] == [None]
    assert len(hashed) == 1
