"""Folders, sockets, disk and port: whether the daemon could have them."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil

from ..runtime_dir import SOCKET_PATH_LIMIT
from ..settings import Settings
from .finding import Finding, gib, note, ok, wrong

LEAST_FREE = 1 << 30
"""Bytes: below that, converting the embedded model or a log may fail."""


def findings(settings: Settings, daemon_pid: int | None) -> Iterator[Finding]:
    """All of them.

    Args:
        settings: The configuration.
        daemon_pid: Of the daemon that answers on the control socket, if one does.
    """
    yield socket_path(settings.control_socket)
    yield runtime_directory(settings.runtime_dir)
    yield control_socket(settings.control_socket, daemon_pid)
    for name in ("state_dir", "cache_dir", "log_dir"):
        yield writable(name, getattr(settings, name))
    yield disk(settings)
    yield port(settings.host, settings.port, daemon_pid)


def socket_path(path: Path) -> Finding:
    """A Unix socket's path has a limit."""
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_LIMIT:
        remedy = "set a shorter one with `socket`, or `runtime_dir`"
        return wrong("socket path", f"{path} has {length} bytes, and {SOCKET_PATH_LIMIT} are allowed", remedy)
    return ok("socket path", f"{length} of {SOCKET_PATH_LIMIT} bytes")


def runtime_directory(path: Path) -> Finding:
    """It must be ours, and closed to others; what is not there will be made so."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return ok("runtime directory", f"{path}, to be made at the first start")
    except OSError as error:
        return wrong("runtime directory", f"{path}: {error.strerror}", "choose another with `runtime_dir`")
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return wrong("runtime directory", f"{path} is not a directory of yours", "choose another with `runtime_dir`")
    if status.st_mode & 0o077:
        mode = f"{status.st_mode & 0o777:o}"
        return wrong("runtime directory", f"{path} is open to others (mode {mode})", f"run: chmod 700 {path}")
    return ok("runtime directory", f"{path}, private")


def control_socket(path: Path, daemon_pid: int | None) -> Finding:
    """A daemon behind it, a leftover, or nothing."""
    if daemon_pid is not None:
        return ok("control socket", f"the daemon (pid {daemon_pid}) answers on {path}")
    if not os.path.lexists(path):
        return ok("control socket", "no daemon runs")
    if path.is_socket():
        return note("control socket", f"{path} is a leftover; nobody answers", "the next start replaces it")
    return wrong("control socket", f"{path} is there, and no socket", "move it away, or set `socket`")


def writable(name: str, path: Path) -> Finding:
    """The nearest folder that exists tells whether the daemon could write there."""
    place = next(folder for folder in (path, *path.parents) if folder.exists())
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return ok(name, str(path))
    what = "is not a directory" if not place.is_dir() else "can't be written to by you"
    return wrong(name, f"{place} {what}", f"mend its permissions, or choose another with `{name}`")


def disk(settings: Settings) -> Finding:
    """Room for what is kept on disk."""
    place = next(folder for folder in (settings.cache_dir, *settings.cache_dir.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    words = f"{gib(free)} free at {place}; prefixes may take {gib(settings.disk_cache_bytes)}"
    if free < LEAST_FREE:
        return wrong("disk", words, "free some space, or move `cache_dir`")
    if free < settings.disk_cache_bytes:
        return note(
            "disk", words, "they take less where less is free; lower `disk_cache_bytes` to be sure of the rest"
        )
    return ok("disk", words)


def port(host: str, number: int, daemon_pid: int | None) -> Finding:
    """Whether the port is free, or who has it."""
    if number == 0:
        return ok("port", "any free one")
    try:
        _try_to_bind(host, number)
    except OSError as error:
        return _taken(host, number, error, daemon_pid)
    return ok("port", f"{host}:{number} is free")


def _try_to_bind(host: str, number: int) -> None:
    family, *_, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the daemon does
        probe.bind(address)


def _taken(host: str, number: int, error: OSError, daemon_pid: int | None) -> Finding:
    if error.errno != errno.EADDRINUSE:
        return wrong("port", f"{host}:{number}: {error.strerror or error}", "choose another `host` or `port`")
    owner = _owner(number)
    if owner is not None and owner == daemon_pid:
        return ok("port", f"{host}:{number}, the daemon's")
    who = "another program" if owner is None else f"{_name(owner)} (pid {owner})"
    return wrong("port", f"{host}:{number} is taken by {who}", "end it, or choose another `port`")


def _owner(number: int) -> int | None:
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return None  # macOS tells it to root only
    listening = (one.pid for one in connections if one.status == psutil.CONN_LISTEN and one.laddr.port == number)
    return next((pid for pid in listening if pid is not None), None)


def _name(pid: int) -> str:
    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return "a program"
