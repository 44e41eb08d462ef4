"""What is remembered of the dead beyond the daemon's own end: one small file, replaced as a whole.

It is for people who ask `status` why last night's worker died. Nothing depends on it: a file that can't be read is an
empty history, and one that can't be written is told once, in the log.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from ..ipc.control_messages import Departure
from .steward import Snapshots

FILE = "departures.json"
"""In the state directory."""

DEPARTURES_KEPT = 32
LARGEST = 1 << 20
"""Bytes of the file; anything larger isn't ours."""

log = structlog.get_logger("stoker.history")


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds.

    Attributes:
        departures: Generations that ended, the oldest first; generation numbers begin anew with each daemon.
        last_words: The last lines of the last worker that died unexpectedly.
        failed: Why the daemon had given up when it was last heard of; None: it had not.
    """

    format: Literal["stoker-departures"] = "stoker-departures"
    departures: tuple[Departure, ...] = ()
    last_words: tuple[str, ...] = ()
    failed: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever asks the next daemon should know."""
        return (f"the daemon before this one had given up: {self.failed}",) if self.failed else ()


def read_history(folder: Path) -> History:
    """What an earlier daemon left; an empty history where there is none, or none that can be read."""
    path = folder / FILE
    try:
        with path.open("rb") as file:
            history = msgspec.json.decode(file.read(LARGEST), type=History)
    except FileNotFoundError:
        return History()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("departures unread", path=str(path), cause=str(error))
        return History()
    return msgspec.structs.replace(history, departures=history.departures[-DEPARTURES_KEPT:])


def write_history(folder: Path, history: History) -> None:
    """Replace the file; not synced, for after a loss of power nobody asks why a worker died.

    Raises:
        OSError: If it can't be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = folder / f"{FILE}.{os.getpid()}.partial"
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(history))
        partial.replace(folder / FILE)
    finally:
        with suppress(OSError):  # renamed already, or not there: nothing to clear away
            partial.unlink()


class Chronicle:
    """Follows the board, and writes when something died or was given up.

    Args:
        folder: The state directory.
        now: The history as of now.
    """

    def __init__(self, folder: Path, now: Callable[[], History]) -> None:
        self._folder = folder
        self._now = now
        self._written: History | None = None
        self._complained = False

    async def follow(self, board: Snapshots) -> None:
        """Until cancelled; what happened last is written all the same."""
        self._written = self._now()  # what is there is there
        try:
            async for _ in board.watch():
                self.write()
        finally:
            self.write()

    def write(self) -> None:
        """Write what is not written yet. Small and not synced, so that the event loop may wait for it."""
        history = self._now()
        if history == self._written:
            return
        try:
            write_history(self._folder, history)
        except OSError as error:
            if not self._complained:
                log.warning("departures unwritten", folder=str(self._folder), cause=str(error))
            self._complained = True
            return
        self._written, self._complained = history, False
