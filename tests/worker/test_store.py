"""The prefix store, in good order: what is saved is served, to whom it belongs."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.worker.store_results import GONE, Draft, NotSaved, Opened, Saved
from tests.fakes.prefix_files import bytes_in, commit, identity, payload, saved, served, store_in, writing

TOKENS = tuple(range(100, 140))


def test_what_was_saved_is_served_to_the_next_worker(tmp_path: Path) -> None:
    """A new store on the same folder finds the prefix, and its data is byte for byte what was saved."""
    first = store_in(tmp_path / "kv")
    result = commit(first, TOKENS, name="system", seconds=14.0, pinned=True)
    second = store_in(tmp_path / "kv")
    found = second.find(TOKENS)

    assert isinstance(result, Saved)
    assert result.written
    assert found is not None
    assert (found.key, found.tokens, found.name, found.seconds, found.pinned) == (
        result.key,
        TOKENS,
        "system",
        14.0,
        True,
    )
    assert served(second, found.key) == payload(TOKENS)


def test_the_longest_prefix_is_found(tmp_path: Path) -> None:
    """Of several prefixes of a prompt the longest is found, be it all of it; what goes another way is not."""
    store = store_in(tmp_path)
    for length in (5, 20, 40):
        saved(store, TOKENS[:length])
    saved(store, (*TOKENS[:30], 7))

    lengths = {size: entry.length for size in (4, 5, 19, 35, 40) if (entry := store.find(TOKENS[:size]))}
    assert lengths == {5: 5, 19: 5, 35: 20, 40: 40}
    assert store.find((1, 2, 3)) is None


@given(
    prefixes=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), max_size=8),
    prompt=st.lists(st.integers(0, 2)),
)
def test_find_agrees_with_its_definition(
    prefixes: list[list[int]], prompt: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is stored, what is found is the longest stored sequence that the prompt begins with."""
    store = store_in(tmp_path_factory.mktemp("kv"))
    for prefix in prefixes:
        saved(store, prefix, 10)
    found = store.find(prompt)

    fitting = [tuple(prefix) for prefix in prefixes if prompt[: len(prefix)] == prefix]
    assert (found.tokens if found else ()) == max(fitting, key=len, default=())


def test_only_the_user_may_read(tmp_path: Path) -> None:
    """The folder is for its owner only, also where it was open before, and so is each file in it."""
    folder = tmp_path / "kv"
    folder.mkdir(mode=0o755)
    store = store_in(folder)
    served(store, saved(store, TOKENS))
    with store.begin("warming", TOKENS, None):
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(modes) == 5
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("part", ["weights", "template", "adapter"])
def test_another_identity_is_rejected_with_its_reason(part: str, tmp_path: Path) -> None:
    """After a change of one part the entry is not found, can't be opened, and says which part changed."""
    key = saved(store_in(tmp_path), TOKENS)
    store = store_in(tmp_path, bound_to=identity(**{part: "changed"}))

    assert store.find(TOKENS) is None
    assert served(store, key) == f"{part} changed"
    assert store.statistics().rejected == {f"{part} changed": 1}
    assert store.statistics().entries == 0
    assert served(store_in(tmp_path), key) == payload(TOKENS)


def test_another_model_is_told_from_a_changed_one(tmp_path: Path) -> None:
    """Entries of another model are neither served nor blamed on a change."""
    saved(store_in(tmp_path), TOKENS)
    store = store_in(tmp_path, bound_to=identity("other", weights="w2", template="t2"))

    assert store.find(TOKENS) is None
    assert store.statistics().rejected == {"another model": 1}


def test_a_changed_engine_says_which_versions(tmp_path: Path) -> None:
    """The reason names the version then and the version now."""
    saved(store_in(tmp_path), TOKENS)
    store = store_in(tmp_path, bound_to=identity(engine="mlx 2"))

    assert store.statistics().rejected == {"engine changed (mlx 1 then, mlx 2 now)": 1}


def test_the_same_tokens_are_not_written_twice(tmp_path: Path) -> None:
    """Saving what is there already writes no data, but takes over the new name and pin."""
    store = store_in(tmp_path)
    saved(store, TOKENS, name="old")
    again = store.commit(Draft(TOKENS, 5000, 1.0, "new", pinned=True), writing(b"never written"))
    found = store.find(TOKENS)

    assert isinstance(again, Saved)
    assert not again.written
    assert found is not None
    assert (found.name, found.pinned) == ("new", True)
    assert served(store, found.key) == payload(TOKENS)
    assert store.statistics().saved == 1


def test_a_name_stands_for_one_prefix(tmp_path: Path) -> None:
    """Saving another prefix under a name drops the one that had it; those of other identities stay."""
    other = store_in(tmp_path, bound_to=identity(weights="w2"))
    saved(other, TOKENS, name="system")
    store = store_in(tmp_path)
    saved(store, TOKENS[:20], name="system")
    saved(store, TOKENS, name="system")

    assert {entry.foreign: entry.length for entry in store.entries()} == {None: 40, "weights changed": 40}
    assert len(store.entries()) == 2


def test_uses_survive_restarts(tmp_path: Path) -> None:
    """How often an entry was opened, and when last, is known to the next worker."""
    store = store_in(tmp_path)
    key = saved(store, TOKENS)
    for _ in range(3):
        served(store, key)
    os.utime(tmp_path / f"{key}.uses", (2e9, 2e9))
    (entry,) = store_in(tmp_path).entries()

    assert (entry.uses, entry.used) == (3, 2e9)


def test_workers_see_each_others_entries(tmp_path: Path) -> None:
    """Two workers on one folder each find at once what the other saved, and what it dropped is gone."""
    old, new = store_in(tmp_path), store_in(tmp_path)
    key = saved(old, TOKENS)
    assert served(new, key) == payload(TOKENS)

    assert new.forget(key)
    assert not new.forget(key)
    assert old.find(TOKENS) is None
    assert served(old, key) == GONE


def test_an_opened_entry_survives_its_eviction(tmp_path: Path) -> None:
    """Between opening and reading another worker may drop the entry: what is read is still what was compared."""
    store = store_in(tmp_path)
    opened = store.open(saved(store, TOKENS))
    assert isinstance(opened, Opened)
    store_in(tmp_path).clear()
    with opened:
        assert Path(opened.path).read_bytes() == payload(TOKENS)


def test_a_save_waits_for_another_no_longer_than_told(tmp_path: Path) -> None:
    """While another worker saves, a save gives up in time and says so; starting and serving don't wait at all."""
    store = store_in(tmp_path)
    key = saved(store, TOKENS)
    entered, leave = threading.Event(), threading.Event()

    def slow(path: Path) -> None:
        entered.set()
        leave.wait(30)
        path.write_bytes(b"slow")

    saving = threading.Thread(target=lambda: store.commit(Draft((1, 2), 4, 1.0), slow))
    saving.start()
    assert entered.wait(30)
    try:
        other = store_in(tmp_path, lock_seconds=0)
        assert served(other, key) == payload(TOKENS)
        refused = commit(other, (3, 4))
    finally:
        leave.set()
        saving.join()

    assert isinstance(refused, NotSaved)
    assert refused.reason == "busy"
    assert other.statistics().not_saved == {"busy": 1}
    assert other.find((1, 2)) is not None


def test_verify_reads_everything(tmp_path: Path) -> None:
    """Each entry, foreign ones too, is reported as right or with what is wrong, and what is wrong is gone."""
    saved(store_in(tmp_path, bound_to=identity(weights="w2")), TOKENS)
    store = store_in(tmp_path)
    bad = saved(store, (1, 2, 3), name="bad")
    saved(store, (4, 5, 6))
    data = tmp_path / f"{bad}.safetensors"
    data.write_bytes(bytes(reversed(data.read_bytes())))

    report = {verified.entry.tokens: verified.fault for verified in store.verify()}
    assert report == {TOKENS: None, (1, 2, 3): "the data file's checksum doesn't fit", (4, 5, 6): None}
    assert {entry.tokens for entry in store.entries()} == {TOKENS, (4, 5, 6)}
    assert [(q.name, q.kind) for q in store.statistics().quarantined] == [("bad", "damaged")]


def test_clear_leaves_what_is_not_ours(tmp_path: Path) -> None:
    """Clearing drops every entry and counts the bytes, but touches no file with a name that isn't ours."""
    folder = tmp_path / "kv"
    store = store_in(folder)
    saved(store, TOKENS)
    saved(store_in(folder, bound_to=identity(weights="w2")), TOKENS)
    size = bytes_in(folder)
    (folder / "notes.txt").write_text("keep me")

    assert store.clear() == (2, size)
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "notes.txt"]
    assert store.entries() == ()


def test_no_prompt_text_in_names(tmp_path: Path) -> None:
    """File names are digests: they tell nothing of tokens or names."""
    store = store_in(tmp_path)
    saved(store, TOKENS, name="secret plans")

    assert not [path for path in tmp_path.iterdir() if "secret" in path.name]
