"""The runtime directory is private, its sockets are too, and only one daemon has it."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stoker.daemon.runtime_dir import (
    SOCKET_PATH_LIMIT,
    AlreadyRunning,
    RuntimeDirError,
    listen,
    private_directory,
    single_instance,
)

ROUNDS = 50
DEADLINE = 20.0


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# -- the directory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_directory_is_made_private(tmp_path: Path, mask: int) -> None:
    """A new runtime directory is the user's alone, whatever the umask, and missing parents are made."""
    path = tmp_path / "a" / "runtime"
    with umask(mask):
        assert private_directory(path) == path

    assert mode_of(path) == 0o700


def test_private_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    """A directory that is private already is used again, with what is in it."""
    path = private_directory(tmp_path / "runtime")
    (path / "file").touch()

    private_directory(path)

    assert (path / "file").exists()


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_open_directory_is_refused(tmp_path: Path, mode: int) -> None:
    """A directory that others may enter is refused with the command that mends it, and left as it is."""
    path = tmp_path / "runtime"
    path.mkdir()
    path.chmod(mode)

    with pytest.raises(RuntimeDirError, match=f"mode {mode:o}.*run: chmod 700 {path}"):
        private_directory(path)
    assert mode_of(path) == mode


def test_link_to_a_directory_is_refused(tmp_path: Path) -> None:
    """A symbolic link could lead anywhere tomorrow, so it is no runtime directory."""
    private_directory(tmp_path / "real")
    path = tmp_path / "runtime"
    path.symlink_to(tmp_path / "real")

    with pytest.raises(RuntimeDirError, match="is not a directory; remove it"):
        private_directory(path)


def test_file_is_no_directory(tmp_path: Path) -> None:
    """Where a file stands no directory can be made; the message names the way out."""
    (tmp_path / "runtime").touch()

    with pytest.raises(RuntimeDirError, match="STOKER_RUNTIME_DIR"):
        private_directory(tmp_path / "runtime")
    with pytest.raises(RuntimeDirError, match=r"cannot make .*: Not a directory"):
        private_directory(tmp_path / "runtime" / "below")


def test_foreign_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private directory of another user is refused."""
    path = private_directory(tmp_path / "runtime")
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)

    with pytest.raises(RuntimeDirError, match=r"belongs to uid .*, not to you"):
        private_directory(path)


# -- the lock ----------------------------------------------------------------------------------------------


def test_lock_is_private_and_stays(tmp_path: Path) -> None:
    """The lock file is the user's alone, is never removed, and can be taken again."""
    lock = tmp_path / "lock"
    with umask(0):
        for _ in range(2):
            with single_instance(lock):
                assert mode_of(lock) == 0o600

    assert lock.exists()


def test_second_daemon_is_told_what_to_do(tmp_path: Path) -> None:
    """Whoever finds the lock taken is told by whom, and how to ask or end the other."""
    lock = tmp_path / "lock"

    with (
        single_instance(lock),
        pytest.raises(AlreadyRunning, match=r"another stoker is running .*lock.*stoker status.*stoker stop"),
        single_instance(lock),
    ):
        pytest.fail("both have it")


def test_lock_is_freed_by_an_error(tmp_path: Path) -> None:
    """A daemon that ends by an exception leaves the lock free."""
    with pytest.raises(ZeroDivisionError), single_instance(tmp_path / "lock"):
        raise ZeroDivisionError
    with single_instance(tmp_path / "lock"):
        pass


def test_lock_is_not_inherited(tmp_path: Path) -> None:
    """A worker that outlives its daemon does not hold the daemon's lock."""
    with single_instance(tmp_path / "lock"):
        command = ["/bin/sh", "-c", "echo running; exec sleep 60"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, close_fds=False)
        assert child.stdout is not None
        child.stdout.readline()
    try:
        with single_instance(tmp_path / "lock"):
            pass
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("elsewhere"), Path.mkdir], ids=["link", "directory"])
def test_odd_lock_file_is_refused(tmp_path: Path, make: object) -> None:
    """A lock that is a link or a directory is refused with the system's reason."""
    assert callable(make)
    make(tmp_path / "lock")

    with pytest.raises(RuntimeDirError, match="cannot open the lock"), single_instance(tmp_path / "lock"):
        pass


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files can't be locked, the message says so instead of a traceback."""

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)

    with (
        pytest.raises(RuntimeDirError, match="No locks available; choose"),
        single_instance(tmp_path / "l"),
    ):
        pass


CONTENDER = """
import sys
from pathlib import Path
from stoker.daemon.runtime_dir import AlreadyRunning, listen, single_instance
folder = Path(sys.argv[1])
for line in sys.stdin:
    try:
        with single_instance(folder / "lock"):
            with listen(folder / "s"):
                print("won", flush=True)
                sys.stdin.readline()
                (folder / "s").unlink()
            print("left", flush=True)
    except AlreadyRunning:
        print("lost", flush=True)
        sys.stdin.readline()
"""


def test_one_of_two_wins_each_time(short_dir: Path) -> None:
    """Of two daemons that start at the same moment exactly one wins, fifty times over, and keeps its socket."""
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, str(short_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for _ in range(2)
    ]
    watchdog = threading.Timer(DEADLINE, _kill, [contenders])
    watchdog.start()
    try:
        for _ in range(ROUNDS):
            outcomes = _race(contenders)
            assert sorted(outcomes) == ["lost", "won"]
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(short_dir / "s"))
            _finish(contenders, outcomes)
    finally:
        watchdog.cancel()
        _kill(contenders)
        for contender in contenders:
            contender.communicate()


def _kill(contenders: list[subprocess.Popen[str]]) -> None:
    for contender in contenders:
        contender.kill()


def _race(contenders: list[subprocess.Popen[str]]) -> list[str]:
    for contender in contenders:
        assert contender.stdin is not None
        contender.stdin.write("go\n")
        contender.stdin.flush()
    return [_line(contender) for contender in contenders]


def _finish(contenders: list[subprocess.Popen[str]], outcomes: list[str]) -> None:
    for contender in contenders:
        assert contender.stdin is not None
        contender.stdin.write("enough\n")
        contender.stdin.flush()
    assert _line(contenders[outcomes.index("won")]) == "left"


def _line(contender: subprocess.Popen[str]) -> str:
    assert contender.stdout is not None
    return contender.stdout.readline().strip()


# -- sockets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_socket_is_private(short_dir: Path, mask: int) -> None:
    """A socket is the user's alone from its first moment, accepts connections, and the umask is as before."""
    path = short_dir / "s"
    with umask(mask), listen(path), socket.socket(socket.AF_UNIX) as client:
        assert mode_of(path) == 0o600
        client.connect(str(path))
        after = os.umask(mask)
        path.unlink()

    assert after == mask


def test_socket_is_never_open_to_others(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment it appears under its name, a socket is already private and listens."""
    seen: list[int] = []
    replace = Path.replace

    def spy(source: Path, target: Path) -> Path:
        seen.append(mode_of(source))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(source))
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", spy)
    with umask(0), listen(short_dir / "s"):
        (short_dir / "s").unlink()

    assert seen == [0o600]


def test_stale_socket_is_replaced(short_dir: Path) -> None:
    """The socket of a daemon that died is replaced, and nothing but the socket is left in the folder."""
    path = short_dir / "s"
    listen(path).close()
    with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))

    with listen(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert [entry.name for entry in short_dir.iterdir()] == ["s"]
        path.unlink()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir], ids=["file", "directory"])
def test_what_is_no_socket_stays(short_dir: Path, make: object) -> None:
    """A file or directory in the socket's place is not ours to remove."""
    assert callable(make)
    path = short_dir / "s"
    make(path)

    with pytest.raises(RuntimeDirError, match="exists and is not a socket; move it away"):
        listen(path)
    assert path.exists()


def test_longest_path_works_and_one_more_does_not(short_dir: Path) -> None:
    """A path of the kernel's very limit works; one byte more is refused before it is tried, with the remedy."""
    room = SOCKET_PATH_LIMIT - len(os.fsencode(short_dir)) - 1
    longest, longer = short_dir / ("s" * room), short_dir / ("s" * (room + 1))
    with listen(longest):
        longest.unlink()

    with pytest.raises(RuntimeDirError, match=rf"has {SOCKET_PATH_LIMIT + 1} bytes.*STOKER_RUNTIME_DIR"):
        listen(longer)


def test_length_counts_bytes(short_dir: Path) -> None:
    """A path of few characters may have too many bytes."""
    with pytest.raises(RuntimeDirError, match="bytes, and"):
        listen(short_dir / ("ü" * 60))


@pytest.mark.parametrize("parent", ["missing", "file"])
def test_folder_that_can_not_hold_a_socket(short_dir: Path, parent: str) -> None:
    """Where the folder is missing or is none, the system's reason is told."""
    (short_dir / "file").touch()

    with pytest.raises(RuntimeDirError, match=r"cannot listen on .*directory"):
        listen(short_dir / parent / "s")
