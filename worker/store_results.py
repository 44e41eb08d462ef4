"""What the prefix store is asked to keep, and what it answers."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Self, TypeAlias

from .store_files import Busy
from .store_index import Entry

Reason: TypeAlias = Literal["over budget", "disk full", "read-only", "busy", "quarantined", "write failed"]
"""Why something was not saved."""

GONE = "gone"
"""Why something isn't opened: another worker evicted it, or someone removed it."""

_REASONS: dict[int | None, Reason] = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk full",
    errno.EFBIG: "disk full",
    errno.EROFS: "read-only",
    errno.EACCES: "read-only",
    errno.EPERM: "read-only",
}


def reason_of(error: OSError) -> Reason:
    """The kind of a file system's refusal."""
    return "busy" if isinstance(error, Busy) else _REASONS.get(error.errno, "write failed")


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be saved.

    Attributes:
        tokens: What the KV was computed from; at least one.
        size: Bytes that the data file will have, at most: so much room is made before it is written.
        seconds: What it took to compute, or would take: its value.
        name: For people, and it takes the place of another entry of that name. No prompt text.
        pinned: Evict it last.
    """

    tokens: Sequence[int]
    size: int
    seconds: float
    name: str | None = None
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Saved:
    """It is on the disk.

    Attributes:
        key: Of the entry.
        size: Bytes of its data.
        seconds: What saving took, waiting for another worker included.
        written: False if the same tokens were there already; then only name and pin were renewed.
    """

    key: str
    size: int
    seconds: float
    written: bool


@dataclass(frozen=True, slots=True)
class NotSaved:
    """It isn't, and nothing is left of the attempt."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """It can't be used, for that reason: compute it."""

    reason: str


class Opened:
    """A data file whose every byte was compared, held open: what happens to its name now doesn't matter.

    Attributes:
        entry: What it is.
        path: Opens the very same file, whatever has its name now; valid until `close`. It has no ending.
    """

    def __init__(self, entry: Entry, descriptor: int) -> None:
        self.entry = entry
        self.path = f"/dev/fd/{descriptor}"
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Any number of times, on any thread."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Verified:
    """One entry after all of it was read: `fault` is what is wrong with it, None if nothing."""

    entry: Entry
    fault: str | None


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One entry that isn't used, or was deleted, and why."""

    key: str
    kind: Literal["damaged", "suspect"]
    reason: str
    name: str | None
    at: float


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """Figures of one instant. Counts are since this worker's start.

    Attributes:
        entries: That can be used.
        size: Bytes of all files, foreign and quarantined ones included.
        budget: Most bytes.
        saved: How often something was written.
        restored: How often something was opened and right.
        evicted: Entries dropped to make room.
        not_saved: How often something wasn't, by reason.
        rejected: Entries that are there and can't be used, by reason: weights changed, another model.
        quarantined: What is set aside, or was found damaged, now and by earlier workers.
        fault: Why the store as a whole doesn't work, if it doesn't.
    """

    entries: int
    size: int
    budget: int
    saved: int
    restored: int
    evicted: int
    not_saved: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    quarantined: tuple[Quarantined, ...] = ()
    fault: str | None = None
