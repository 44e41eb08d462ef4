"""Which stored prefixes go when there is no room: the cheapest to lose, for each byte that they take.

The budget covers every file of ours: half-written, stale, another model's and quarantined ones too. Besides, some of
the volume stays free.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .identity import ANOTHER_MODEL
from .store_files import Folder
from .store_index import Entry

Shortage: TypeAlias = Literal["over budget", "disk full"]

HALF_LIFE = 7 * 86_400.0
"""Seconds without use after which an entry is worth half."""
LARGEST_RESERVE = 2 << 30
"""Bytes; or a twentieth of the volume where that is less. Other programs fail in worse ways than we do."""


@dataclass(frozen=True, slots=True)
class DiskBudget:
    """A hard limit for the store's folder.

    Attributes:
        limit: Bytes of all files together.
        reserve: Bytes of the volume that stay free; None: 2 GiB or 5 %, whichever is less.
    """

    limit: int
    reserve: int | None = None

    def room(self, folder: Folder) -> tuple[int, Shortage]:
        """Bytes that may still be written, perhaps less than none; and what they are limited by.

        Raises:
            OSError: The folder can't be read.
        """
        free, total = folder.free()
        reserve = min(LARGEST_RESERVE, total // 20) if self.reserve is None else self.reserve
        allowed, spare = self.limit - folder.usage(), free - reserve
        return (allowed, "over budget") if allowed <= spare else (spare, "disk full")


def victims(entries: Iterable[Entry], size: int, now: float, *, pinned: bool) -> list[Entry] | None:
    """Entries to drop for `size` bytes, the cheapest first; None if all that may go are not enough.

    Args:
        entries: All there are.
        size: Bytes that are missing.
        now: Seconds since 1970.
        pinned: Whether pinned ones may go as well, after all others.
    """
    chosen: list[Entry] = []
    for entry in sorted(entries, key=lambda entry: (_is_kept(entry), not _is_stale(entry), worth(entry, now))):
        if size <= 0:
            break
        if pinned or not _is_kept(entry):
            chosen.append(entry)
            size -= entry.size
    return chosen if size <= 0 else None


def worth(entry: Entry, now: float) -> float:
    """Seconds that it saves, for each byte, halved with each week that nobody used it."""
    idle = max(0.0, now - max(entry.used, entry.created))
    return entry.seconds / max(1, entry.size) * 2 ** -(idle / HALF_LIFE)


def _is_stale(entry: Entry) -> bool:
    """Made for what this model was before: it can only become useful if all that changed changes back."""
    return entry.foreign is not None and entry.foreign != ANOTHER_MODEL


def _is_kept(entry: Entry) -> bool:
    return entry.pinned and not _is_stale(entry)
