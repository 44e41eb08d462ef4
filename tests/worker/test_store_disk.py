"""The prefix store on disks that refuse: nothing is raised, nothing half-written stays, and the reason is told."""

from __future__ import annotations

import os
import resource
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stoker.worker.store_results import Draft, NotSaved, Saved
from tests.fakes.prefix_files import commit, payload, saved, served, small_disk, store_in, writing

TOKENS = (1, 2, 3)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may become larger: what is beyond is refused as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_has_its_name_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data, then its manifest: each is synced before it gets its name, and the folder after both."""
    store = store_in(tmp_path / "kv")
    done: list[str] = []
    own_sync, own_rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        done.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        own_sync(descriptor)

    def rename(path: Path, target: Path) -> Path:
        done.append(f"name {target.suffix}")
        return own_rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    saved(store, TOKENS)

    assert done == ["sync file", "name .safetensors", "sync file", "name .json", "sync folder"]


def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path: Path) -> None:
    """Where writing the data stops in the middle, the result says so, nothing remains, and the next save works."""
    store = store_in(tmp_path / "kv")
    before = names_in(tmp_path / "kv")
    with largest_file(2000):
        result = commit(store, TOKENS)

    assert isinstance(result, NotSaved)
    assert result.reason == "disk full"
    assert names_in(tmp_path / "kv") == before
    assert (store.statistics().fault or "").startswith("disk full: ")
    assert served(store, saved(store, TOKENS)) == payload(TOKENS)
    assert store.statistics().fault is None


def test_a_disk_that_fills_up_under_the_manifest_leaves_nothing_behind(tmp_path: Path) -> None:
    """Where the data fits and the manifest doesn't, there is no entry, and the next start sweeps the data up."""
    tokens = tuple(range(2000))
    store = store_in(tmp_path / "kv")
    with largest_file(2000):
        result = store.commit(Draft(tokens, 100, 1.0), writing(bytes(100)))

    assert isinstance(result, NotSaved)
    assert result.reason == "disk full"
    assert store.find(tokens) is None
    store_in(tmp_path / "kv")
    assert names_in(tmp_path / "kv") == ["lock"]


def test_a_full_volume_is_survived(tmp_path: Path) -> None:
    """On a volume full of others' files saving fails by name, and what is stored is served on."""
    with small_disk(tmp_path / "disk", 256 << 10):
        store = store_in(tmp_path / "disk")
        key = saved(store, TOKENS)
        (tmp_path / "disk" / "others").write_bytes(bytes(200 << 10))
        refused = commit(store, (4, 5), 60_000)
        assert isinstance(refused, NotSaved)
        assert refused.reason == "disk full"
        assert served(store_in(tmp_path / "disk"), key) == payload(TOKENS)


def test_a_volume_that_fills_up_while_writing_is_named(tmp_path: Path) -> None:
    """Where another program takes the space in the middle, an engine's own error counts as a full disk."""

    def racing(path: Path) -> None:
        path.write_bytes(bytes(1000))
        fill(path.with_name("others"))
        raise RuntimeError("[write] Unable to write 4000 bytes to file.")

    with small_disk(tmp_path / "disk", 256 << 10):
        store = store_in(tmp_path / "disk")
        result = store.commit(Draft(TOKENS, 50_000, 1.0), racing)

    assert isinstance(result, NotSaved)
    assert result.reason == "disk full"


def test_a_read_only_volume_serves_what_it_has(tmp_path: Path) -> None:
    """Mounted read-only, a store opens, says so, saves nothing, and restores what was there; later all is well."""
    with small_disk(tmp_path / "disk", 1 << 20) as mount:
        key = saved(store_in(tmp_path / "disk"), TOKENS)
        mount("ro")
        store = store_in(tmp_path / "disk")
        assert (store.statistics().fault or "").startswith("read-only: ")
        refused = commit(store, (4, 5))
        assert isinstance(refused, NotSaved)
        assert refused.reason == "read-only"
        assert served(store, key) == payload(TOKENS)
        assert (store.forget(key), store.clear(), store.release()) == (False, (0, 0), 0)
        mount("rw")
        assert isinstance(commit(store, (4, 5)), Saved)
        assert store.statistics().fault is None


def test_what_is_damaged_on_a_read_only_volume_is_not_served(tmp_path: Path) -> None:
    """Damage that can't be deleted is remembered: the entry is not found again, and not read again."""
    with small_disk(tmp_path / "disk", 1 << 20) as mount:
        store = store_in(tmp_path / "disk")
        key = saved(store, TOKENS)
        (tmp_path / "disk" / f"{key}.safetensors").write_bytes(bytes(5000))
        mount("ro")
        assert served(store, key) == "the data file's checksum doesn't fit"
        assert store.find(TOKENS) is None
        assert served(store, key) == "the data file's checksum doesn't fit"
        assert [mark.key for mark in store.statistics().quarantined] == [key]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    """Where the folder can't be made, all methods answer, and the reason is `read-only`."""
    tmp_path.chmod(0o500)
    store = store_in(tmp_path / "kv")
    result = commit(store, TOKENS)

    assert isinstance(result, NotSaved)
    assert result.reason == "read-only"


@pytest.mark.parametrize("obstacle", ["file", "link"])
def test_a_folder_that_is_something_else_is_named(obstacle: str, tmp_path: Path) -> None:
    """A file or a link in the folder's place is left alone: every method answers, nothing is written through it."""
    place, target = tmp_path / "kv", tmp_path / "elsewhere"
    target.mkdir()
    if obstacle == "link":
        place.symlink_to(target)
    else:
        place.write_bytes(b"mine")
    store = store_in(place)

    assert isinstance(commit(store, TOKENS), NotSaved)
    assert store.find(TOKENS) is None
    assert store.entries() == ()
    assert store.verify() == ()
    assert store.clear() == (0, 0)
    assert not store.begin("warming", TOKENS, None).written
    assert not store.forget("a" * 40)
    assert store.statistics().fault is not None
    assert list(target.iterdir()) == []


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written into a folder that someone else owns."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    store = store_in(tmp_path)

    assert "belongs to another user" in (store.statistics().fault or "")
    assert isinstance(commit(store, TOKENS), NotSaved)


def test_a_folder_that_vanishes_is_made_again(tmp_path: Path) -> None:
    """Someone deletes the folder of a running worker: nothing is found, and the next save works."""
    store = store_in(tmp_path / "kv")
    key = saved(store, TOKENS)
    shutil.rmtree(tmp_path / "kv")

    assert store.find(TOKENS) is None
    assert served(store, key) == "gone"
    assert store.statistics().size == 0
    assert store.clear() == (0, 0)
    assert served(store, saved(store, TOKENS)) == payload(TOKENS)


def test_a_folder_that_vanishes_while_saving_is_survived(tmp_path: Path) -> None:
    """Someone deletes the folder in the middle of a save: the save fails by name, the next one works."""

    def vanishing(path: Path) -> None:
        shutil.rmtree(path.parent)

    store = store_in(tmp_path / "kv")
    result = store.commit(Draft(TOKENS, 5000, 1.0), vanishing)

    assert isinstance(result, NotSaved)
    assert served(store, saved(store, TOKENS)) == payload(TOKENS)


@pytest.mark.parametrize("error", [ValueError("bad"), RuntimeError("[save] no"), OSError("odd")])
def test_a_writer_that_fails_leaves_nothing_behind(error: Exception, tmp_path: Path) -> None:
    """Whatever the callback raises becomes a result, and no file remains."""

    def failing(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    store = store_in(tmp_path / "kv")
    result = store.commit(Draft(TOKENS, 5000, 1.0), failing)

    assert isinstance(result, NotSaved)
    assert result.reason == "write failed"
    assert str(error) in result.detail
    assert names_in(tmp_path / "kv") == ["lock"]


def test_a_file_put_in_place_of_the_partial_one_is_refused(tmp_path: Path) -> None:
    """A writer that replaces the file instead of filling it is told so: what is synced must be what is named."""

    def replacing(path: Path) -> None:
        path.unlink()
        path.write_bytes(b"another file")

    result = store_in(tmp_path).commit(Draft(TOKENS, 5000, 1.0), replacing)

    assert isinstance(result, NotSaved)
    assert "was replaced" in result.detail


def fill(path: Path) -> None:
    """Take all space that is left."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return
