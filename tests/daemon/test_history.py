"""What outlives the daemon of its workers' deaths."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from stoker.daemon.history import DEPARTURES_KEPT, FILE, LARGEST, Chronicle, History, read_history, write_history
from stoker.daemon.lifecycle import Phase, State
from stoker.daemon.readiness import NOTHING_YET, Board, describe
from stoker.ipc.control_messages import Departure

pytestmark = pytest.mark.anyio

CRASH = Departure(at=1e9, generation=3, cause="crashed with SIGABRT: a fault in native code, or out of memory")
PAST = History(departures=(CRASH,), last_words=("terminate called",), failed="died 6 times within 300 s")


def test_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Departures, last words and the reason of a failure come back; the file is private, and nothing else is left."""
    folder = tmp_path / "state"
    write_history(folder, PAST)

    assert read_history(folder) == PAST
    assert [path.name for path in folder.iterdir()] == [FILE]
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", b'{"format": "other"}', b"[1]", b" " * (LARGEST + 5)], ids=len
)
def test_what_is_not_a_history_is_none(tmp_path: Path, data: bytes) -> None:
    """A damaged, foreign or huge file is an empty history, and no error."""
    (tmp_path / FILE).write_bytes(data)

    assert read_history(tmp_path) == History()


def test_history_is_bounded(tmp_path: Path) -> None:
    """However many departures a file has, the last ones are taken."""
    write_history(tmp_path, History(departures=tuple(Departure(at=n, generation=n, cause="") for n in range(100))))

    assert [one.generation for one in read_history(tmp_path).departures] == list(range(100 - DEPARTURES_KEPT, 100))


async def test_death_is_written_at_once(tmp_path: Path) -> None:
    """A departure is in the file as soon as its transition was published; nothing is written before."""
    board = Board(NOTHING_YET)
    history = History()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Chronicle(tmp_path, lambda: history).follow, board)
        await anyio.wait_all_tasks_blocked()
        assert not has_file(tmp_path)

        history = PAST
        board.publish(describe(State(phase=Phase.FAILED), 0.0, None))
        await anyio.wait_all_tasks_blocked()
        assert read_history(tmp_path) == PAST
        tasks.cancel_scope.cancel()


async def test_last_death_is_written_at_the_end(tmp_path: Path) -> None:
    """What happened in the instant in which the daemon ends is written too."""
    history = History()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Chronicle(tmp_path, lambda: history).follow, Board(NOTHING_YET))
        await anyio.wait_all_tasks_blocked()
        history = PAST
        tasks.cancel_scope.cancel()

    assert read_history(tmp_path) == PAST


def test_unwritable_folder_stops_nothing(tmp_path: Path) -> None:
    """Where nothing can be written the daemon goes on, and writes when it can again."""
    (tmp_path / "state").write_text("not a folder")
    chronicle = Chronicle(tmp_path / "state", lambda: PAST)
    chronicle.write()
    assert read_history(tmp_path / "state") == History()

    (tmp_path / "state").unlink()
    chronicle.write()
    assert read_history(tmp_path / "state") == PAST


def has_file(folder: Path) -> bool:
    return (folder / FILE).exists()
