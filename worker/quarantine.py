"""What may not be used, and why; and the journal by which a dead worker tells what killed it.

Before something that may kill the process (restoring or warming a prefix) a marker is put into the folder; after it,
the marker is removed. It is synced, because a bad driver takes the whole machine down. Its writer holds a lock on it.
So a marker that nobody holds was left by a worker that died in the middle of it, and that prefix is a *suspect*: it
is set aside until it is released. Something *damaged* is deleted at once, it can only be computed again; what is kept
of it is the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Literal, Self, TypeAlias

import msgspec

from .store_files import Folder, Partial, StoredFile

log = logging.getLogger(__name__)

Doing: TypeAlias = Literal["restoring", "warming"]
DOINGS: tuple[Doing, ...] = ("restoring", "warming")

LARGEST = 1 << 16
"""Bytes of a mark or a marker; more is not ours."""
MOST_DAMAGED = 32
"""Records of damage that are kept; the oldest go."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Why an entry is not used.

    Attributes:
        kind: A `suspect` is kept and may be released; what was `damaged` is deleted.
        reason: In words.
        name: The entry's name, if that is known.
        at: When, in seconds since 1970.
    """

    kind: Literal["damaged", "suspect"]
    reason: str
    name: str | None
    at: float


class Marker:
    """Says that something dangerous is going on, until it is ended. Also a context manager.

    Args:
        file: Published; None where it could not be written: then a crash tells nothing, and work goes on.
    """

    def __init__(self, file: Partial | None) -> None:
        self._file = file

    @property
    def written(self) -> bool:
        """Whether the next worker would see it."""
        return self._file is not None

    def end(self) -> None:
        """It went well, or failed as an exception. Any number of times, on any thread."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.remove()
            except OSError as error:
                # The folder became read-only, for instance. An unlocked marker would accuse the entry.
                log.warning("a marker can't be removed: %s", error)
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def begin(folder: Folder, key: str, doing: Doing, name: str | None, now: float) -> Marker:
    """Put a marker into the folder; takes two fsyncs.

    Args:
        folder: Of the store.
        key: What it is about.
        doing: What may kill us.
        name: The entry's name.
        now: Seconds since 1970.
    """
    try:
        file = folder.partial(key, doing)
    except OSError as error:
        log.warning("no marker for %s: %s", doing, error)
        return Marker(None)
    try:
        # Already what it becomes if we die: then a rename is enough, and needs no space.
        reason = f"the worker died while {doing} it"
        file.write(msgspec.json.encode(Mark(kind="suspect", reason=reason, name=name, at=now)))
        file.publish()
        folder.sync()
    except OSError as error:
        # Without it the work is as good; only a crash would go unexplained.
        log.warning("no marker for %s: %s", doing, error)
        file.close()
        return Marker(None)
    return Marker(file)


def reap(folder: Folder, files: Iterable[StoredFile]) -> list[str]:
    """Turn the markers of dead workers into suspicions; returns the keys.

    Raises:
        OSError: The folder can't be written to.
    """
    keys = []
    for file in files:
        if file.ending in DOINGS and not file.partial and (marker := folder.abandoned(file, "quarantined")):
            with marker:
                marker.publish()
            keys.append(file.key)
    return keys


def set_aside(folder: Folder, key: str, mark: Mark) -> None:
    """Record why an entry is not used.

    Raises:
        OSError: The folder can't be written to.
    """
    folder.write(key, "quarantined", msgspec.json.encode(mark))


def marks(folder: Folder, files: Iterable[StoredFile]) -> dict[str, Mark]:
    """What is in quarantine, by key."""
    found = {}
    for file in files:
        if file.ending == "quarantined" and not file.partial:
            found[file.key] = _mark(folder, file)
    return found


def forget_old(folder: Folder, found: dict[str, Mark]) -> None:
    """Keep the latest records of damage only.

    Raises:
        OSError: The folder can't be written to.
    """
    damaged = sorted((mark.at, key) for key, mark in found.items() if mark.kind == "damaged")
    for _, key in damaged[: max(0, len(damaged) - MOST_DAMAGED)]:
        folder.remove(f"{key}.quarantined")
        del found[key]


def _mark(folder: Folder, file: StoredFile) -> Mark:
    try:
        return msgspec.json.decode(folder.read(file.name, LARGEST), type=Mark)
    except (OSError, msgspec.DecodeError):
        # That it is there says enough; the reason is lost.
        return Mark(kind="suspect", reason="set aside, for a reason that can't be read", name=None, at=file.modified)
