"""What an uninstalled Stoker leaves on the disk.

It is found by name, so that a folder that was configured by mistake to be somebody's home loses only our files.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..derived import EMBEDDED_ID
from ..settings import Settings

LOGS = ("daemon.log*", "worker.log*", "service.log*")
STATE = ("learned", "departures.json*")
RUNTIME = ("*.sock", "control.sock.lock")
CACHE = ("prefixes", f"{EMBEDDED_ID}*", f".{EMBEDDED_ID}.*")


def remove(settings: Settings, *, purge: bool) -> tuple[Path, ...]:
    """Delete logs, state and sockets, and with `purge` converted models and prefixes, too.

    Returns:
        What is left on purpose, or because it is not ours.
    """
    _delete(settings.log_dir, LOGS)
    _delete(settings.state_dir, STATE)
    _delete(settings.runtime_dir, RUNTIME)
    if purge:
        _delete(settings.cache_dir, CACHE)
    folders = (settings.log_dir, settings.state_dir, settings.runtime_dir, settings.cache_dir)
    return tuple(dict.fromkeys(folder for folder in folders if folder.exists()))


def _delete(folder: Path, patterns: Iterable[str]) -> None:
    for path in (found for pattern in patterns for found in folder.glob(pattern)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # something that is not ours is in it, or it was never there
        folder.rmdir()
