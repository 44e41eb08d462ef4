"""The journal: a worker that dies in the middle of something accuses it; one that ends it, or leaves, doesn't."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stoker.worker.quarantine import Doing
from stoker.worker.store_results import NotSaved
from tests.fakes.prefix_files import commit, payload, saved, served, small_disk, store_in

TOKENS = (5, 6, 7, 8)

DOOMED = """
import sys, time
from pathlib import Path
from tests.fakes.prefix_files import store_in
store = store_in(Path(sys.argv[1]))
marker = store.begin(sys.argv[2], (5, 6, 7, 8), "system")
print("begun", flush=True)
sys.stdin.read()
if sys.argv[3] == "leaves":
    store.close()
"""


@contextmanager
def worker_in(folder: Path, doing: Doing, end: str = "dies") -> Iterator[subprocess.Popen[str]]:
    """Another process that is restoring or warming; it ends when its input does."""
    command = [sys.executable, "-c", DOOMED, str(folder), doing, end]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process


def died_in(folder: Path, doing: Doing) -> None:
    with worker_in(folder, doing) as process:
        process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("doing", ["restoring", "warming"])
def test_what_a_worker_died_of_is_suspect(doing: Doing, tmp_path: Path) -> None:
    """After a SIGKILL in the middle, the next worker neither finds nor opens the entry, and says why."""
    key = saved(store_in(tmp_path), TOKENS, name="system")
    died_in(tmp_path, doing)
    store = store_in(tmp_path)

    assert store.suspicion(TOKENS) == f"the worker died while {doing} it"
    assert store.find(TOKENS) is None
    assert served(store, key) == f"the worker died while {doing} it"
    (mark,) = store.statistics().quarantined
    assert (mark.kind, mark.name) == ("suspect", "system")


def test_a_prefix_that_was_never_saved_can_be_suspect(tmp_path: Path) -> None:
    """A worker that dies of warming leaves no entry, but the next one knows which prefix it was."""
    died_in(tmp_path, "warming")
    store = store_in(tmp_path)

    assert store.suspicion(TOKENS) == "the worker died while warming it"
    assert store.suspicion((5, 6, 7)) is None


def test_a_released_suspect_is_tried_again(tmp_path: Path) -> None:
    """After its release the entry is found and served, as it was."""
    key = saved(store_in(tmp_path), TOKENS)
    died_in(tmp_path, "restoring")
    store = store_in(tmp_path)

    assert store.release() == 1
    assert store.release() == 0
    assert store.suspicion(TOKENS) is None
    assert served(store, key) == payload(TOKENS)
    assert store_in(tmp_path).find(TOKENS) is not None


def test_a_suspect_is_not_saved_anew(tmp_path: Path) -> None:
    """The same data would kill the next worker too: saving says that it is set aside."""
    died_in(tmp_path, "restoring")
    result = commit(store_in(tmp_path), TOKENS)

    assert isinstance(result, NotSaved)
    assert result.reason == "quarantined"


def test_a_living_worker_accuses_nobody(tmp_path: Path) -> None:
    """While one worker restores, another one's start takes the marker for what it is."""
    key = saved(store_in(tmp_path), TOKENS)
    with worker_in(tmp_path, "restoring"):
        store = store_in(tmp_path)
        assert store.suspicion(TOKENS) is None
        assert served(store, key) == payload(TOKENS)
        assert store.clear()[0] == 1
        assert (tmp_path / f"{key}.restoring").exists()


def test_a_worker_that_leaves_accuses_nobody(tmp_path: Path) -> None:
    """A worker told to stop in the middle of a warmup closes its store; the next one suspects nothing."""
    with worker_in(tmp_path, "warming", "leaves"):
        pass

    assert store_in(tmp_path).statistics().quarantined == ()


def test_an_ended_marker_accuses_nobody(tmp_path: Path) -> None:
    """Work that ends, be it by an exception, leaves no trace; ending twice is harmless."""
    store = store_in(tmp_path)
    marker = store.begin("restoring", TOKENS, None)
    assert marker.written
    with contextlib.suppress(ValueError), marker:
        raise ValueError("the engine failed")
    marker.end()

    assert store_in(tmp_path).suspicion(TOKENS) is None


def test_two_workers_on_one_prefix_don_t_clear_each_other(tmp_path: Path) -> None:
    """Both restore the same entry; the one that is done takes away its own marker, not the other's."""
    store = store_in(tmp_path)
    first = store.begin("restoring", TOKENS, None)
    with worker_in(tmp_path, "restoring") as process:
        first.end()
        process.send_signal(signal.SIGKILL)

    assert store_in(tmp_path).suspicion(TOKENS) == "the worker died while restoring it"


def test_work_goes_on_without_a_marker(tmp_path: Path) -> None:
    """On a read-only disk no marker can be written; that is told, and stops nothing."""
    with small_disk(tmp_path / "disk", 1 << 20) as mount:
        store = store_in(tmp_path / "disk")
        key = saved(store, TOKENS)
        mount("ro")
        with store.begin("restoring", TOKENS, None) as marker:
            assert not marker.written
            assert served(store, key) == payload(TOKENS)


def test_a_suspicion_needs_no_space(tmp_path: Path) -> None:
    """On a full disk a dead worker's marker still becomes a suspicion."""
    with small_disk(tmp_path / "disk", 256 << 10) as _:
        died_in(tmp_path / "disk", "restoring")
        fill(tmp_path / "disk" / "filling")

        assert store_in(tmp_path / "disk").suspicion(TOKENS) == "the worker died while restoring it"


def test_a_mark_that_cannot_be_read_still_counts(tmp_path: Path) -> None:
    """A torn mark keeps its entry set aside, until it is released."""
    store = store_in(tmp_path)
    key = saved(store, TOKENS)
    (tmp_path / f"{key}.quarantined").write_bytes(b"{")

    assert store.find(TOKENS) is None
    assert store.release() == 1
    assert store.find(TOKENS) is not None


def fill(path: Path) -> None:
    """Take all space that is left."""
    with path.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(os.urandom(size))
            except OSError:
                continue
