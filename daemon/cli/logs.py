"""`stoker logs`: the end of a log, and what is added to it. Works without a daemon."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from io import SEEK_END, BufferedReader
from pathlib import Path
from typing import Annotated, TextIO

import typer

from ...ipc.control import ClientError, ControlClient
from ..config import load_client_settings
from .connection import SocketOption, ask
from .outcome import NEGATIVE, Failure
from .words import printable

POLL_INTERVAL = 0.2
BLOCK = 65536

QUERY_TIMEOUT = 1.0
"""Seconds for the daemon to say where its logs are; then they are where the configuration says."""


def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added, until Ctrl-C.")] = False,
    worker: Annotated[bool, typer.Option("--worker", help="The worker's output, not the daemon's log.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, metavar="N", help="Lines from the end.")] = 50,
    socket: SocketOption = None,
) -> None:
    """Show the daemon's structured log, or the worker's output.

    JSON lines where the output is not a terminal.
    """
    path = _path("worker" if worker else "daemon", socket)
    show = _shower(sys.stdout, structured=not worker)
    if not follow and not path.exists():
        raise Failure(f"there is no log at {path} yet; `stoker run` writes it", NEGATIVE)
    with closing(Tail(path)) as tail:
        for line in tail.last(lines):
            show(line)
        while follow:
            sys.stdout.flush()
            time.sleep(POLL_INTERVAL)
            for line in tail.new():
                show(line)


def _path(name: str, socket: Path | None) -> Path:
    try:
        return Path(ask(socket, ControlClient.status, QUERY_TIMEOUT).logs[name])
    except (ClientError, KeyError):
        return load_client_settings(socket, os.environ).log_dir / f"{name}.log"  # the last daemon's, most likely


class Tail:
    """Reads a log that is being written, and rotated, by another process. It need not exist yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: BufferedReader | None = None
        self._half = b""

    def last(self, count: int) -> list[str]:
        """The last lines; `new` continues after them."""
        self._stream = _open(self._path)
        if self._stream is None:
            return []
        blocks: deque[bytes] = deque()
        start = self._stream.seek(0, SEEK_END)
        while start > 0 and sum(block.count(b"\n") for block in blocks) <= count:
            size = min(BLOCK, start)
            start = self._stream.seek(start - size)
            blocks.appendleft(self._stream.read(size))
        self._stream.seek(0, SEEK_END)
        lines = self._complete(b"".join(blocks))
        return lines[-count:] if count else []

    def new(self) -> list[str]:
        """Lines added since the last call."""
        lines = self._complete(self._stream.read()) if self._stream else []
        if self._is_replaced():
            self.close()
            self._stream = _open(self._path)
            lines += self._complete(self._stream.read()) if self._stream else []
        return lines

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def _complete(self, data: bytes) -> list[str]:
        *lines, self._half = (self._half + data).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]

    def _is_replaced(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False  # between two renames of a rotation, or not written yet
        if self._stream is None:
            return True
        ours = os.fstat(self._stream.fileno())
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino) or there.st_size < self._stream.tell()


def _open(path: Path) -> BufferedReader | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}") from error


def _shower(out: TextIO, *, structured: bool) -> Callable[[str], None]:
    """How a line is written: for a person on a terminal, untouched elsewhere."""
    if not out.isatty():
        return lambda line: print(line, file=out)
    return lambda line: print(printable(readable(line) if structured else line), file=out)


def readable(line: str) -> str:
    """A JSON log line for a person: time, severity, event, then the rest."""
    try:
        event = json.loads(line)
        head = f"{event.pop('timestamp')[:19]}  {event.pop('level'):8}{event.pop('event')}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return line  # not one of ours, such as half a line after a full disk
    return "  ".join([head, *(f"{name}={value}" for name, value in event.items() if name != "logger")])
