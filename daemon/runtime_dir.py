"""The runtime directory: private, ours, and of one daemon only.

Bound sockets are no proof of being alone: asyncio and anyio unlink a live socket and bind anew. So the lock comes
first. It is an flock on a file that is never unlinked: whoever removed it would let a second holder in.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET_PATH_LIMIT = 103 if sys.platform == "darwin" else 107
"""Bytes of a Unix socket's path: `sun_path` is 104 (macOS) or 108 (Linux) with its final zero."""

LISTEN_BACKLOG = 1024
"""Connections that may wait to be accepted; the kernel lowers it to its own limit (net.core.somaxconn)."""


class RuntimeDirError(Exception):
    """A runtime path can't be used; the message says why, and what to do. Exit code 78."""


class AlreadyRunning(RuntimeDirError):
    """Another daemon holds the lock."""


def private_directory(path: Path) -> Path:
    """Make a directory that only this user can enter, or check that it is one.

    Raises:
        RuntimeDirError: If it is another user's, or open to others, or can't be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise RuntimeDirError(
            f"cannot make {path}: {error.strerror}; choose another with STOKER_RUNTIME_DIR"
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise RuntimeDirError(f"{path} is not a directory; remove it, or choose another with STOKER_RUNTIME_DIR")
    if status.st_uid != os.geteuid():
        raise RuntimeDirError(
            f"{path} belongs to uid {status.st_uid}, not to you; choose another with STOKER_RUNTIME_DIR"
        )
    if status.st_mode & 0o077:
        raise RuntimeDirError(
            f"{path} is open to other users (mode {status.st_mode & 0o777:o}); run: chmod 700 {path}"
        )
    return path


@contextmanager
def single_instance(lock: Path) -> Iterator[None]:
    """Hold the lock file while the block runs.

    Raises:
        AlreadyRunning: If another process holds it.
        RuntimeDirError: If it can't be opened.
    """
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise RuntimeDirError(f"cannot open the lock {lock}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(
                f"another stoker is running (it holds {lock}); ask it with `stoker status`, end it with `stoker stop`"
            ) from error
        except OSError as error:
            raise RuntimeDirError(f"cannot lock {lock}: {error.strerror}; choose a local disk") from error
        yield
    finally:
        os.close(descriptor)


def listen(path: Path) -> socket.socket:
    """A listening Unix socket, mode 0600 from its first moment. What was at `path` is replaced without a gap.

    Raises:
        RuntimeDirError: If the path is too long, or something that is not a socket is there, or binding fails.
    """
    check_length(path)
    _check_replaceable(path)
    temporary = path.with_name(f".{os.getpid():x}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        temporary.unlink(missing_ok=True)
        listener.bind(str(temporary))
        listener.listen(LISTEN_BACKLOG)
        temporary.replace(path)
    except OSError as error:
        listener.close()
        raise RuntimeDirError(f"cannot listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(mask)
    listener.setblocking(False)  # noqa: FBT003 - the library's signature
    return listener


def remove_worker_sockets(directory: Path) -> None:
    """Delete worker sockets of lives that were cut short; the lock file stays, and must."""
    for path in directory.glob("worker-*.sock"):
        path.unlink(missing_ok=True)


def _check_replaceable(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # nothing is there, or nothing can be; then binding will say why
    if not stat.S_ISSOCK(mode):
        raise RuntimeDirError(
            f"{path} exists and is not a socket; move it away, or choose another path with --socket"
        )


def check_length(path: Path) -> None:
    """Raises `RuntimeDirError` if a socket's path doesn't fit the kernel's structure."""
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_LIMIT:
        raise RuntimeDirError(
            f"the socket path {path} has {size} bytes, and {SOCKET_PATH_LIMIT} are allowed; "
            "choose a shorter one with --socket or STOKER_RUNTIME_DIR"
        )


def why_no_port(host: str, port: int, error: OSError) -> str:
    """Why an address can't be listened on, with the way out."""
    if error.errno == errno.EADDRINUSE:
        remedy = "another program uses the port; end it, or choose another with --port (0 takes any free one)"
    else:
        remedy = f"{error.strerror}; choose another address with --host, or another port with --port"
    return f"cannot listen on {host}:{port}: {remedy}"
