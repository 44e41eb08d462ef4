"""The prefix store and files that are not what was saved: never served, and the reason is told."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.worker import store_reader
from stoker.worker.identity import FORMAT
from stoker.worker.manifest import Manifest, encode
from stoker.worker.store import PrefixStore
from stoker.worker.store_files import sha256
from stoker.worker.store_results import Draft
from tests.fakes.prefix_files import identity, payload, saved, served, store_in, writing

TOKENS = tuple(range(1000, 1064))
OTHER = tuple(range(2000, 2064))

Change = Callable[[bytes], bytes]

TRUNCATED: dict[str, Change] = {
    "missing content": lambda _: b"",
    "cut to a byte": lambda data: data[:1],
    "cut in the middle": lambda data: data[: len(data) // 2],
    "cut by one byte": lambda data: data[:-1],
    "one byte too many": lambda data: data + b"\0",
    "twice as long": lambda data: data * 2,
}
SAME_SIZE: dict[str, Change] = {
    "zeroed": lambda data: bytes(len(data)),
    "zeroed tail": lambda data: data[:-100] + bytes(100),
    "zeroed last byte": lambda data: data[:-1] + bytes([0 if data[-1] else 1]),
    "a flipped first bit": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "a flipped last bit": lambda data: data[:-1] + bytes([data[-1] ^ 128]),
    "garbage": lambda data: random.Random(1).randbytes(len(data)),
    "halves swapped": lambda data: data[len(data) // 2 :] + data[: len(data) // 2],
}


def change(path: Path, how: Change) -> None:
    """Change a file in place, as a bad disk does: size, time and inode may all be what they were."""
    before = path.stat()
    data = how(path.read_bytes())
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def expect_rejected(store: PrefixStore, key: str, folder: Path) -> str:
    """The entry is not served, gone, and listed; the same prefix can be saved again. Returns the reason."""
    reason = served(store, key)
    assert isinstance(reason, str)
    assert store.find(TOKENS) is None
    assert [(mark.key, mark.kind) for mark in store.statistics().quarantined] == [(key, "damaged")]
    assert [mark.key for mark in store_in(folder).statistics().quarantined] == [key]
    assert not (folder / f"{key}.safetensors").exists()
    assert saved(store, TOKENS) == key
    assert served(store, key) == payload(TOKENS)
    assert store.statistics().quarantined == ()
    return reason


@pytest.mark.parametrize("how", [*TRUNCATED.values(), *SAME_SIZE.values()], ids=[*TRUNCATED, *SAME_SIZE])
@pytest.mark.parametrize("ending", ["safetensors", "json"])
def test_a_changed_file_is_never_served(ending: str, how: Change, tmp_path: Path) -> None:
    """Data or manifest cut off, zeroed, flipped, or too long: rejected by the worker that saved it."""
    store = store_in(tmp_path)
    key = saved(store, TOKENS)
    change(tmp_path / f"{key}.{ending}", how)

    expect_rejected(store, key, tmp_path)


@pytest.mark.parametrize("how", [*TRUNCATED.values(), *SAME_SIZE.values()], ids=[*TRUNCATED, *SAME_SIZE])
@pytest.mark.parametrize("ending", ["safetensors", "json"])
def test_a_changed_file_is_not_served_after_a_restart(ending: str, how: Change, tmp_path: Path) -> None:
    """The next worker rejects it too, at its start or when it opens it, and tells the reason."""
    key = saved(store_in(tmp_path), TOKENS)
    change(tmp_path / f"{key}.{ending}", how)
    store = store_in(tmp_path)

    assert isinstance(served(store, key), str)
    assert store.find(TOKENS) is None
    (mark,) = store.statistics().quarantined
    assert mark.key == key
    assert mark.reason


@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_bit_of_a_manifest_is_without_effect(
    position: float, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whichever bit of a manifest is flipped, in tokens, identity, size or checksum: the entry is rejected."""
    folder = tmp_path_factory.mktemp("kv")
    key = saved(store_in(folder), TOKENS)
    path = folder / f"{key}.json"
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1 << bit
    path.write_bytes(data)
    store = store_in(folder)

    assert isinstance(served(store, key), str)
    assert store.find(TOKENS) is None


@pytest.mark.parametrize("size", [0, 4999, 5001])
def test_another_size_is_told(size: int, tmp_path: Path) -> None:
    """The reason names both sizes, which tells a full disk from a bad one."""
    store = store_in(tmp_path)
    key = saved(store, TOKENS)
    change(tmp_path / f"{key}.safetensors", lambda data: (data * 2)[:size])

    assert served(store, key) == f"the data file has {size} bytes, not 5000"


def test_an_entry_replaced_while_it_is_read_is_not_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker drops and saves the entry anew between manifest and data: the new one is not deleted."""
    store, other = store_in(tmp_path), store_in(tmp_path)
    key = saved(store, TOKENS)

    def raced(descriptor: int) -> str:
        monkeypatch.setattr(store_reader, "sha256", sha256)
        other.forget(key)
        other.commit(Draft(TOKENS, 5000, 2.0), writing(bytes(5000)))
        return "the new data's"

    monkeypatch.setattr(store_reader, "sha256", raced)

    assert served(store, key) == "gone"
    assert store.statistics().quarantined == ()
    assert served(store, key) == bytes(5000)


def test_tokens_that_were_changed_with_care_are_noticed(tmp_path: Path) -> None:
    """A manifest edited into valid JSON with other tokens doesn't fit its digest."""
    store = store_in(tmp_path)
    key = saved(store, TOKENS)
    path = tmp_path / f"{key}.json"
    manifest = json.loads(path.read_bytes())
    manifest["entry"]["tokens"][0] += 1
    path.write_text(json.dumps(manifest, separators=(",", ":")))

    assert expect_rejected(store, key, tmp_path) == "the manifest's checksum doesn't fit"


@pytest.mark.parametrize("model", ["tiny", "other"])
def test_swapped_data_files_are_noticed(model: str, tmp_path: Path) -> None:
    """Data files of equal size, exchanged between two prompts or two models, are served to neither."""
    store, other = store_in(tmp_path), store_in(tmp_path, bound_to=identity(model, weights="w2"))
    key = saved(store, TOKENS)
    second = saved(other, OTHER if model == "tiny" else TOKENS)
    swap(tmp_path / f"{key}.safetensors", tmp_path / f"{second}.safetensors")
    if model == "other":  # the same tokens: make the content differ, as another model's KV does
        change(tmp_path / f"{key}.safetensors", lambda data: bytes(byte ^ 255 for byte in data))

    assert expect_rejected(store, key, tmp_path) == "the data file's checksum doesn't fit"


@pytest.mark.parametrize("model", ["tiny", "other"])
def test_swapped_entries_are_noticed(model: str, tmp_path: Path) -> None:
    """Whole entries under each other's names, manifest and data, are served to neither."""
    store, other = store_in(tmp_path), store_in(tmp_path, bound_to=identity(model, weights="w2"))
    first, second = saved(store, TOKENS), saved(other, OTHER)
    for ending in ("json", "safetensors"):
        swap(tmp_path / f"{first}.{ending}", tmp_path / f"{second}.{ending}")

    assert served(store, first) == "the manifest belongs to another entry"
    assert served(other, second) == "the manifest belongs to another entry"


def test_an_entry_without_data_is_noticed(tmp_path: Path) -> None:
    """A manifest whose data file was removed serves nothing."""
    store = store_in(tmp_path)
    key = saved(store, TOKENS)
    (tmp_path / f"{key}.safetensors").unlink()

    assert expect_rejected(store, key, tmp_path) == "the data file is missing"


@pytest.mark.parametrize("ending", ["safetensors", "json"])
@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_is_no_file_is_never_opened(kind: str, ending: str, tmp_path: Path) -> None:
    """A link to a right file, a pipe that would block for ever, a directory: none is followed, read or served."""
    store = store_in(tmp_path / "kv")
    key = saved(store, TOKENS)
    path = tmp_path / "kv" / f"{key}.{ending}"
    path.rename(tmp_path / "elsewhere")
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()

    assert isinstance(served(store, key), str)
    assert (tmp_path / "elsewhere").exists()
    assert store_in(tmp_path / "kv").find(TOKENS) is None


def test_a_huge_manifest_is_not_read_into_memory(tmp_path: Path) -> None:
    """A manifest of a terabyte, all holes, is rejected by its size."""
    store = store_in(tmp_path)
    key = saved(store, TOKENS)
    with (tmp_path / f"{key}.json").open("r+b") as file:
        file.truncate(1 << 40)

    assert isinstance(served(store, key), str)


def test_another_version_of_the_format_is_left_alone(tmp_path: Path) -> None:
    """An entry that a newer version wrote is not served, not damaged, and takes its space in the budget."""
    store = store_in(tmp_path)
    newer = Manifest(
        format=FORMAT + 1,
        key="a" * 40,
        model="tiny",
        identity={},
        tokens=TOKENS,
        name=None,
        pinned=False,
        created=0.0,
        seconds=1.0,
        size=7,
        sha256="",
    )
    (tmp_path / f"{'a' * 40}.json").write_bytes(encode(newer))
    (tmp_path / f"{'a' * 40}.safetensors").write_bytes(b"content")

    assert store.find(TOKENS) is None
    assert served(store, "a" * 40) == "format changed"
    store = store_in(tmp_path)
    assert store.statistics().rejected == {"format changed": 1}
    assert store.statistics().quarantined == ()
    assert [verified.fault for verified in store.verify()] == [None]


def test_leftovers_of_killed_saves_are_swept(tmp_path: Path) -> None:
    """Half-written files, data without a manifest, and uses of nothing are gone after the next start."""
    folder = tmp_path / "kv"
    key = saved(store_in(folder), TOKENS)
    for name in (
        f"{'b' * 40}.0123abcd.part.safetensors",
        f"{'b' * 40}.0123abcd.part.json",
        f"{key}.0123abcd.part.quarantined",
        f"{'c' * 40}.safetensors",
        f"{'d' * 40}.uses",
    ):
        (folder / name).write_bytes(b"leftover")
    store = store_in(folder)

    assert sorted(path.name for path in folder.iterdir()) == [f"{key}.json", f"{key}.safetensors", "lock"]
    assert store.statistics().quarantined == ()
    assert served(store, key) == payload(TOKENS)


def test_records_of_damage_are_bounded(tmp_path: Path) -> None:
    """However much is damaged, only the latest reasons are kept."""
    store = store_in(tmp_path)
    keys = [saved(store, (number, 1)) for number in range(40)]
    for key in keys:
        store.condemn(key, "test")

    assert len(store_in(tmp_path).statistics().quarantined) == 32


def test_a_condemned_entry_is_not_served_again(tmp_path: Path) -> None:
    """What the engine finds unfit after opening is deleted, with the engine's reason."""
    store = store_in(tmp_path)
    key = saved(store, TOKENS, name="system")
    store.condemn(key, "layer 3 holds 7 tokens, not 64")

    assert store.find(TOKENS) is None
    (mark,) = store_in(tmp_path).statistics().quarantined
    assert (mark.name, mark.reason) == ("system", "layer 3 holds 7 tokens, not 64")


def swap(first: Path, second: Path) -> None:
    spare = first.with_name("spare")
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
