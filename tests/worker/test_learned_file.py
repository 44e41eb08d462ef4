"""What was learned, from run to run: private, atomic, and never fatal."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stoker.ipc.messages import ChatPrompt
from stoker.worker import learned_file
from stoker.worker.learned_file import MOST_FILES, LearnedFile
from stoker.worker.learning import Opening

NOW = 1_800_000_000.0
LONG = 3600.0
"""Seconds between writes, where only the first one and that of the end shall come."""
DEADLINE = 20.0


def opened(folder: Path, model: str = "tiny", template: str = "t1", **more: Any) -> LearnedFile:
    return LearnedFile(folder, model, template, **{"clock": lambda: NOW, "interval": LONG, **more})


def learn(file: LearnedFile, system: str = "You keep the fire.") -> None:
    def measure(opening: Opening) -> int:
        return 500

    for _ in range(2):
        file.ledger.observe(ChatPrompt(messages=({"role": "system", "content": system},)), NOW, measure)
    file.changed()


def known(file: LearnedFile) -> list[str]:
    return [entry.opening.messages[0]["content"] for entry in file.ledger.listing(NOW)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "learned"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """`written()` waits for the next write to end, well or not."""
    ends = threading.Semaphore(0)
    original = LearnedFile._written

    def announced(self: LearnedFile) -> str | None:
        result = original(self)
        ends.release()
        return result

    monkeypatch.setattr(LearnedFile, "_written", announced)

    def wait() -> None:
        assert ends.acquire(timeout=DEADLINE)

    return wait


def test_next_run_knows_what_was_learned(folder: Path) -> None:
    """Closing writes what is unwritten; the next run begins with it."""
    first = opened(folder)
    learn(first)
    assert first.close(DEADLINE)

    second = opened(folder)
    assert known(second) == ["You keep the fire."]
    assert second.ledger.listing(NOW) == first.ledger.listing(NOW)
    assert (second.put_aside, second.unwritten) == (None, None)


def test_nothing_learned_writes_nothing(folder: Path) -> None:
    """Opening and closing leaves no trace on the disk."""
    assert opened(folder).close(DEADLINE)

    assert not folder.parent.exists()


def test_file_is_private(folder: Path) -> None:
    """Folder 0700, file 0600, also where the folder was open before and whatever the umask."""
    folder.mkdir(parents=True, mode=0o755)
    old = os.umask(0)
    try:
        file = opened(folder)
        learn(file)
        assert file.close(DEADLINE)
    finally:
        os.umask(old)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == [file.path.name]


def test_writes_are_seldom_and_in_the_background(folder: Path, written: Callable[[], None]) -> None:
    """The first change is written at once, later ones together, after the interval or at the end."""
    file = opened(folder)
    learn(file, "one")
    written()
    learn(file, "two")
    learn(file, "three")
    assert known(opened(folder)) == ["one"]

    assert file.close(DEADLINE)
    assert sorted(known(opened(folder))) == ["one", "three", "two"]


def test_urgent_change_does_not_wait_for_the_interval(folder: Path, written: Callable[[], None]) -> None:
    """What another worker is to read at its start is written at once, however lately something else was."""
    file = opened(folder)
    learn(file)
    written()
    learn(file, "You mend the net.")
    file.changed(urgent=True)
    written()

    assert set(known(opened(folder))) == {"You mend the net.", "You keep the fire."}
    assert file.close(DEADLINE)


def test_changes_after_the_interval_are_written(folder: Path, written: Callable[[], None]) -> None:
    """Without an end, each interval writes what has changed in it."""
    file = opened(folder, interval=0.0)
    learn(file, "one")
    written()
    learn(file, "two")
    written()

    assert sorted(known(opened(folder))) == ["one", "two"]
    assert file.close(DEADLINE)


def test_models_and_templates_learn_apart(folder: Path) -> None:
    """The same prompt has other tokens with another model or template, and is learned for each by itself."""
    file = opened(folder)
    learn(file)
    file.close(DEADLINE)

    assert known(opened(folder, model="other")) == known(opened(folder, template="t2")) == []
    assert known(opened(folder)) == ["You keep the fire."]


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"\x00" * len(data),
        lambda _: b"[" * 100_000,
        lambda data: data.replace(b'"version":1', b'"version":2'),
        lambda data: data.replace(b"stoker-learned", b"another-format"),
        lambda data: data.replace(b'"model":"tiny"', b'"model":"huge"'),
        lambda data: data.replace(b'"tokens":500', b'"tokens":-5'),
        lambda data: data.replace(b"fire", b"\xff\xfe\xff\xfe"),
        lambda data: data + b" " * learned_file.LARGEST_FILE,
    ],
    ids=["empty", "cut", "zeroed", "nested", "version", "format", "model", "negative", "not utf-8", "huge"],
)
def test_damaged_file_is_put_aside(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    """A file that can't be used is kept aside with a reason that quotes no prompt, and learning begins anew."""
    first = opened(folder)
    learn(first)
    first.close(DEADLINE)
    damaged = damage(first.path.read_bytes())
    first.path.write_bytes(damaged)
    second = opened(folder)

    assert known(second) == []
    assert second.put_aside is not None
    assert "fire" not in second.put_aside
    assert first.path.with_suffix(".aside").read_bytes() == damaged
    learn(second, "anew")
    assert second.close(DEADLINE)
    assert known(opened(folder)) == ["anew"]


def test_flipped_bit_in_a_text_drops_that_entry(folder: Path) -> None:
    """A text that isn't what its checksum says is not warmed; the others are."""
    first = opened(folder)
    learn(first, "one fire")
    learn(first, "two fires")
    first.close(DEADLINE)
    first.path.write_bytes(first.path.read_bytes().replace(b"one fire", b"one wire"))

    assert known(opened(folder)) == ["two fires"]


def test_what_is_no_file_of_ours_is_not_read(folder: Path, tmp_path: Path) -> None:
    """A link, a folder or a pipe in the file's place is put aside, and never waited for."""
    path = opened(folder).path
    folder.mkdir(parents=True)
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    makers: tuple[Callable[[Path], None], ...] = (os.mkdir, os.mkfifo, lambda path: path.symlink_to(outside))
    for make in makers:
        make(path)
        file = opened(folder)
        assert file.put_aside is not None
        assert not path.exists()
        aside = path.with_suffix(".aside")
        aside.rmdir() if aside.is_dir() else aside.unlink()

    assert outside.read_text() == "{}"


def test_unwritable_folder_is_told_and_tried_again(
    folder: Path, written: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Where writing fails, learning goes on in memory; the reason is shown, logged once, and gone when it works."""
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    file = opened(folder, interval=0.0)
    learn(file)
    written()
    written()
    assert file.unwritten is not None
    assert known(file) == ["You keep the fire."]
    assert sum("can't be written" in record.message for record in caplog.records) == 1

    folder.unlink()
    while file.unwritten:
        written()
    assert known(opened(folder)) == ["You keep the fire."]
    assert file.close(DEADLINE)


def test_failed_write_leaves_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails half-way changes nothing and leaves nothing behind."""
    first = opened(folder)
    learn(first)
    first.close(DEADLINE)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    second = opened(folder)
    learn(second, "more")
    assert second.close(DEADLINE)

    assert second.unwritten == "what was learned can't be written: No space left on device"
    assert [path.name for path in folder.iterdir()] == [first.path.name]
    assert known(opened(folder)) == ["You keep the fire."]


def test_leftovers_are_swept(folder: Path) -> None:
    """What killed workers left unfinished goes with the next write, and so do files of models not used for long."""
    file = opened(folder)
    folder.mkdir(parents=True)
    dead = subprocess.Popen(["/bin/true"])
    dead.wait()
    file.path.with_suffix(f".{dead.pid}.partial").write_bytes(b"{")
    for number in range(MOST_FILES + 5):
        old = folder / f"{number:016x}.json"
        old.write_bytes(b"{}")
        os.utime(old, (number, number))
    learn(file)
    assert file.close(DEADLINE)
    names = sorted(path.name for path in folder.iterdir())

    assert len(names) == MOST_FILES
    assert file.path.name in names
    assert f"{5:016x}.json" not in names
    assert f"{6:016x}.json" in names


def test_clear_leaves_no_prompt_on_the_disk(folder: Path) -> None:
    """Clearing drops this model's prefixes, and all files of other models with theirs."""
    other = opened(folder, model="other")
    learn(other, "other prompt")
    other.close(DEADLINE)
    file = opened(folder)
    learn(file)
    assert file.clear() == 1
    assert file.close(DEADLINE)

    left = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"prompt" not in left
    assert b"fire" not in left


def test_file_says_what_it_is(folder: Path) -> None:
    """The file names its format, version, model and template."""
    file = opened(folder)
    learn(file)
    file.close(DEADLINE)
    document = msgspec.json.decode(file.path.read_bytes())

    assert [document[key] for key in ("format", "version", "model", "template")] == [
        "stoker-learned",
        1,
        "tiny",
        "t1",
    ]


def test_change_after_close_is_not_written(folder: Path) -> None:
    """Closed is closed: no thread is started any more."""
    file = opened(folder)
    assert file.close(DEADLINE)
    learn(file)

    assert not folder.exists()


def test_partial_of_a_living_worker_is_left_alone(folder: Path) -> None:
    """While one worker replaces another both write: neither removes what the other has half written."""
    neighbour = subprocess.Popen(["/bin/sleep", "60"])
    try:
        file = opened(folder)
        half = file.path.with_suffix(f".{neighbour.pid}.partial")
        folder.mkdir(parents=True)
        half.write_bytes(b"{")
        learn(file)
        assert file.close(DEADLINE)
        assert half.exists()
    finally:
        neighbour.kill()
        neighbour.wait()


def test_what_was_just_learned_is_written_at_once(folder: Path, written: Callable[[], None]) -> None:
    """A prefix learned right after another write doesn't wait for the interval: a successor may be starting."""
    file = opened(folder)
    learn(file)
    written()
    learn(file, "You sweep the floor.")
    file.changed(urgent=True)
    written()

    assert sorted(known(opened(folder))) == ["You keep the fire.", "You sweep the floor."]
    assert file.close(DEADLINE)
