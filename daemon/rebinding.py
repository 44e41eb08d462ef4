"""A control socket whose file goes away while the daemon runs: noticed, and bound anew.

Somebody's cleaner empties temporary folders, or a person deletes "a stale socket". The connections that are open
don't mind; but nobody could open another.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TypeAlias

import anyio
import structlog

from .runtime_dir import RuntimeDirError, listen, private_directory

LOOK = 2.0
"""Seconds between two looks: a wake-up that costs nothing, and less than a person waits."""

Identity: TypeAlias = tuple[int, int]

log = structlog.get_logger("stoker.control")


def identity(path: Path) -> Identity | None:
    """Which file is there; None if there is none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


async def gone(path: Path | None) -> None:
    """Wait until what is at the path now is there no more. Without a path, for ever."""
    if path is None:
        await anyio.sleep_forever()
        return
    bound = identity(path)
    while bound is not None and identity(path) == bound:  # noqa: ASYNC110 - no portable notice of a deleted file
        await anyio.sleep(LOOK)


async def bound_again(path: Path) -> socket.socket:
    """A new listener at the path; tried until it succeeds, and what hinders is logged when it changes."""
    hindrance = ""
    while True:
        try:
            private_directory(path.parent)
            listener = listen(path)
        except RuntimeDirError as error:
            if str(error) != hindrance:
                log.warning("control socket lost", cause=str(error))
            hindrance = str(error)
            await anyio.sleep(LOOK)
        else:
            log.warning("control socket bound again", path=str(path))
            return listener
