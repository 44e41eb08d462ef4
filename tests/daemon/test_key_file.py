"""The file with the API's keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stoker.daemon.key_file import SIZE_LIMIT, KeyFileError, others_may_read, read_key_file

SECRET = "sk-local-secret"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.touch(0o600)
    return path


def test_one_key_a_line(file: Path) -> None:
    """Spaces around a key, empty lines and comments don't count."""
    file.write_text(f"# for the editor\n{SECRET}\n\n  another-key  \r\n")

    assert read_key_file(file) == (SECRET, "another-key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_file_that_others_may_use_is_refused(file: Path, mode: int) -> None:
    """A secret that others can read, or replace, is none; the message has the remedy."""
    file.write_text(SECRET)
    file.chmod(mode)

    with pytest.raises(KeyFileError, match=rf"mode {mode:04o}\): chmod 600"):
        read_key_file(file)


@pytest.mark.parametrize("text", ["", "\n# nothing\n"])
def test_file_without_a_key_is_refused(file: Path, text: str) -> None:
    """A file that is there to protect, and holds nothing, must not leave the API open."""
    file.write_text(text)

    with pytest.raises(KeyFileError, match="holds no key"):
        read_key_file(file)


@pytest.mark.parametrize("line", ["short", "with a space in it", "schlüssel-mit-umlaut", "x" * 513])
def test_line_that_is_no_key_is_told_by_its_number(file: Path, line: str) -> None:
    """The message names the line, and does not quote it."""
    file.write_text(f"{SECRET}\n{line}\n")

    with pytest.raises(KeyFileError, match="line 2 of") as error:
        read_key_file(file)
    assert line not in str(error.value)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file is an error, not an open API."""
    with pytest.raises(KeyFileError, match="No such file"):
        read_key_file(tmp_path / "missing")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """Neither a directory nor a pipe holds keys, and a pipe doesn't keep us waiting."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path in (pipe, tmp_path):
        with pytest.raises(KeyFileError):
            read_key_file(path)


def test_large_file_is_refused(file: Path) -> None:
    """A file of the wrong kind is not read whole."""
    file.write_text(f"{SECRET}\n" * (SIZE_LIMIT // len(SECRET)))

    with pytest.raises(KeyFileError, match="larger than"):
        read_key_file(file)


def test_readable_by_others(file: Path) -> None:
    """A file's mode tells whether others may read it."""
    assert not others_may_read(file)
    file.chmod(0o644)
    assert others_may_read(file)
    assert not others_may_read(file.with_name("missing"))
