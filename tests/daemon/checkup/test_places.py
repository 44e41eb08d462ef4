"""Folders, sockets and ports that the daemon could not have."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from stoker.daemon.checkup import places
from stoker.daemon.settings import Settings


def test_socket_path_that_is_too_long() -> None:
    """The limit is the kernel's, and the way out is a setting."""
    finding = places.socket_path(Path("/" + "x" * 200))

    assert finding.level == "wrong"
    assert "201 bytes, and " in finding.text


def test_runtime_directory(tmp_path: Path) -> None:
    """One that is not there is made later; one that is open to others is wrong, and the command mends it."""
    absent = places.runtime_directory(tmp_path / "run")
    (tmp_path / "run").mkdir(mode=0o700)
    private = places.runtime_directory(tmp_path / "run")
    (tmp_path / "run").chmod(0o755)
    public = places.runtime_directory(tmp_path / "run")
    (tmp_path / "file").touch()

    assert [absent.level, private.level, public.level] == ["ok", "ok", "wrong"]
    assert public.remedy == f"run: chmod 700 {tmp_path / 'run'}"
    assert places.runtime_directory(tmp_path / "file").level == "wrong"


def test_control_socket(short_dir: Path) -> None:
    """A daemon, a leftover, something else, or nothing: each is told."""
    path = short_dir / "control.sock"
    nothing = places.control_socket(path, None)
    path.touch()
    in_the_way = places.control_socket(path, None)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    leftover = places.control_socket(path, None)
    path.unlink()

    assert [nothing.level, in_the_way.level, leftover.level] == ["ok", "wrong", "note"]
    assert "(pid 42) answers" in places.control_socket(path, 42).text


def test_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    """What counts is whether it could be made."""
    (tmp_path / "file").touch()

    assert places.writable("log_dir", tmp_path / "a" / "b").level == "ok"
    assert places.writable("log_dir", tmp_path / "file" / "b").level == "wrong"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_of_somebody_else() -> None:
    """A folder that can't be written to is wrong."""
    assert places.writable("log_dir", Path("/etc/stoker")).level == "wrong"


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less room than the prefixes may take is a note, hardly any is wrong."""
    settings = Settings(cache_dir=tmp_path / "cache", disk_cache_bytes=8 << 30)
    levels = []
    for free in (100 << 30, 4 << 30, 1 << 20):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        levels.append(places.disk(settings).level)

    assert levels == ["ok", "note", "wrong"]


def test_port_that_is_free() -> None:
    """Port 0 is any free one, and needs no look."""
    assert places.port("127.0.0.1", 0, None).text == "any free one"


def test_port_that_is_taken() -> None:
    """Who has the port is named; if it is the daemon, all is well."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        taken = places.port("127.0.0.1", number, None)
        ours = places.port("127.0.0.1", number, os.getpid())

    assert taken.level == "wrong"
    assert f"(pid {os.getpid()})" in taken.text
    assert ours.level == "ok"


def test_host_that_is_not_ours() -> None:
    """An address that this machine does not have is told as what it is."""
    finding = places.port("192.0.2.1", 11500, None)

    assert finding.level == "wrong"
    assert "192.0.2.1:11500: " in finding.text


def test_all_of_them(tmp_path: Path) -> None:
    """Each place is looked at once."""
    settings = Settings(runtime_dir=tmp_path, state_dir=tmp_path, cache_dir=tmp_path, log_dir=tmp_path, port=0)
    subjects = [finding.subject for finding in places.findings(settings, None)]

    assert len(subjects) == len(set(subjects)) == 8
