"""KV prefixes on disk: saved the moment they are warm, and served only if every byte is the one that was saved.

A prefix is two files. The data file (safetensors, written by a callback) is synced and renamed into place first, the
manifest, which binds its checksum to tokens and identity, last. So at whatever instant the process or the machine
dies, an entry is there as a whole or is not there. Opening one reads all of it, and compares.

Nothing here raises for what a disk does: full, read-only, gone, in use by another worker. Results say what happened.
Every method may be called on any thread. `commit`, `verify` and `clear` take as long as the disk does: call them on
an I/O thread. `find` takes a millisecond, `open` one for each MB, with the GIL free.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from .disk_budget import DiskBudget
from .identity import Identity
from .manifest import Damaged, key_of, packed
from .quarantine import Doing, Mark, Marker, begin, reap
from .store_ahead import Ahead
from .store_files import Busy, Folder
from .store_index import Contents, Entry, Index, best, closest, entry_of
from .store_reader import Reader, Unusable
from .store_results import (
    Draft,
    NotSaved,
    Opened,
    Quarantined,
    Rejected,
    Saved,
    StoreStatistics,
    Verified,
    reason_of,
)
from .store_upkeep import clear, condemn, drop
from .store_writer import Writer

log = logging.getLogger(__name__)

LOCK_SECONDS = 30.0
"""How long a save waits for another worker's save: some GB on a slow disk."""
FAULTS = frozenset({"disk full", "read-only", "write failed"})
"""Reasons that concern the store as a whole, until something can be saved again."""


class PrefixStore:
    """The store's folder, for one model as it is now.

    Making one takes care of what a killed worker left; it is safe while other workers use the same folder.

    Args:
        folder: Its place; made, for this user only.
        identity: What entries must be bound to.
        budget_bytes: Most bytes of all files together.
        reserve_bytes: Bytes of the volume to leave free; None: 2 GiB or 5 %, whichever is less.
        lock_seconds: How long a save waits for another worker's.
        ahead: What was compared before the identity was known.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        budget_bytes: int,
        *,
        reserve_bytes: int | None = None,
        lock_seconds: float = LOCK_SECONDS,
        ahead: Ahead | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = Folder(folder)
        self._identity = identity
        self._digest = identity.digest
        self._limit = budget_bytes
        self._lock_seconds = lock_seconds
        self._now = clock
        self._reader = Reader(self._folder, ahead)
        self._guard = threading.RLock()  # over all below; never held while data is read or written
        self._index = Index(self._folder, identity)
        budget = DiskBudget(budget_bytes, reserve_bytes)
        self._writer = Writer(self._folder, identity, budget, lambda: self._contents(fresh=True), clock)
        self._condemned: dict[str, Mark] = {}  # also what could not be written down
        self._markers: list[Marker] = []
        self._counts: Counter[str] = Counter()
        self._not_saved: Counter[str] = Counter()
        self._fault: str | None = None
        self._start()

    # -- serving ---------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._folder.path

    def key(self, tokens: Sequence[int]) -> str:
        """Names the files of these tokens under this identity."""
        return key_of(self._digest, packed(tokens))

    def find(self, tokens: Sequence[int]) -> Entry | None:
        """The longest stored prefix of the tokens, perhaps all of them; its data is not read yet."""
        return best(self._contents(), tokens, self._condemned)

    def closest(self, tokens: Sequence[int]) -> tuple[Entry, int] | None:
        """The stored prefix that shares most with the tokens, and how many it shares: for KV that can be cut."""
        return closest(self._contents(), tokens, self._condemned)

    def open(self, key: str) -> Opened | Rejected:
        """Read an entry's data, compare, and count it as a use. What is damaged is deleted, and set aside by reason.

        Args:
            key: An entry's.
        """
        if mark := self._contents().marks.get(key) or self._condemned.get(key):
            return Rejected(mark.reason)
        try:
            manifest, descriptor = self._reader.opened(key, self._identity)
        except Damaged as fault:
            return self.condemn(key, str(fault))
        except (Unusable, OSError) as error:
            return Rejected(str(error))
        try:
            self._folder.append(key, "uses", b".")
        except OSError as error:
            log.info("a use can't be noted: %s", error)  # only eviction would like to know
        with self._guard:
            self._counts["restored"] += 1
        return Opened(entry_of(manifest), descriptor)

    def condemn(self, key: str, reason: str) -> Rejected:
        """Delete an entry that proved to be wrong, and remember why."""
        known = self._contents().entries.get(key)
        mark = Mark(kind="damaged", reason=reason, name=known.name if known else None, at=self._now())
        with self._guard:
            self._condemned[key] = mark
        condemn(self._folder, key, mark)
        return Rejected(reason)

    # -- saving ----------------------------------------------------------------------------------------------

    def commit(self, draft: Draft, write: Callable[[Path], None]) -> Saved | NotSaved:
        """Put an entry on the disk, and make room for it.

        Args:
            draft: What it is.
            write: Writes the data into the file at that path, which exists, is empty, and ends in `.safetensors`.
        """
        result: Saved | NotSaved
        try:
            self._folder.prepare()
            with self._folder.lock(self._lock_seconds):
                result = self._writer.put(draft, write)
        except OSError as error:
            result = NotSaved(reason_of(error), str(error))
        with self._guard:
            if isinstance(result, NotSaved):
                self._not_saved[result.reason] += 1
                self._fault = f"{result.reason}: {result.detail}" if result.reason in FAULTS else self._fault
            else:
                self._counts["saved"] += result.written
                self._condemned.pop(result.key, None)
                self._fault = None
        return result

    # -- what may kill the worker ----------------------------------------------------------------------------

    def begin(self, doing: Doing, tokens: Sequence[int], name: str | None) -> Marker:
        """Note that something begins that may kill the process; end the marker when it hasn't."""
        marker = begin(self._folder, self.key(tokens), doing, name, self._now())
        with self._guard:
            self._markers = [*(marker for marker in self._markers if marker.written), marker]
        return marker

    def suspicion(self, tokens: Sequence[int]) -> str | None:
        """Why these tokens should be neither restored nor warmed: the last worker died of it. None if it didn't."""
        mark = self._contents().marks.get(self.key(tokens))
        return mark.reason if mark and mark.kind == "suspect" else None

    def release(self) -> int:
        """Try all suspects again, after some time of good service; returns how many."""
        suspects = [key for key, mark in self._contents().marks.items() if mark.kind == "suspect"]
        try:
            return sum(self._folder.remove(f"{key}.quarantined") for key in suspects)
        except OSError as error:
            self._failed(error)
            return 0

    def close(self) -> None:
        """Leave in peace: whatever is going on, its end is wanted, so nothing is to be suspected."""
        with self._guard:
            markers, self._markers = self._markers, []
        for marker in markers:
            marker.end()

    # -- for people ------------------------------------------------------------------------------------------

    def entries(self) -> tuple[Entry, ...]:
        """All there are, foreign ones too, the latest used first."""
        return tuple(sorted(self._contents(fresh=True).entries.values(), key=lambda entry: -entry.used))

    def verify(self) -> tuple[Verified, ...]:
        """Read and compare everything, other models' entries too; what is damaged is deleted."""
        return tuple(Verified(entry, self._proven(entry)) for entry in self.entries())

    def prove(self, key: str) -> Verified | None:
        """Read and compare one entry, as `verify` does; None if there is none."""
        entry = self._contents(fresh=True).entries.get(key)
        return Verified(entry, self._proven(entry)) if entry else None

    def forget(self, key: str) -> bool:
        """Delete an entry and what is held against it; False if there was none, or it can't be deleted."""
        try:
            with self._folder.lock(self._lock_seconds):
                known = self._folder.remove(f"{key}.quarantined") | (key in self._contents().entries)
                drop(self._folder, key)
        except OSError as error:
            self._failed(error)
            return False
        return known

    def clear(self) -> tuple[int, int]:
        """Delete everything, other models' entries too; returns how many entries, and bytes."""
        try:
            with self._folder.lock(self._lock_seconds):
                cleared = clear(self._folder, self._contents(fresh=True).files)
        except FileNotFoundError:
            return 0, 0  # there is no folder
        except OSError as error:
            self._failed(error)
            return 0, 0
        with self._guard:
            self._condemned.clear()
        return cleared

    def statistics(self) -> StoreStatistics:
        """Figures of now."""
        contents = self._contents(fresh=True)
        with self._guard:
            marks = {**self._condemned, **contents.marks}
            entries = contents.entries.values()
            return StoreStatistics(
                entries=sum(entry.servable and entry.key not in self._condemned for entry in entries),
                size=sum(file.size for file in contents.files),
                budget=self._limit,
                saved=self._counts["saved"],
                restored=self._counts["restored"],
                evicted=self._writer.evicted,
                not_saved=dict(self._not_saved),
                rejected=dict(Counter(entry.foreign for entry in entries if entry.foreign)),
                quarantined=tuple(Quarantined(key, m.kind, m.reason, m.name, m.at) for key, m in marks.items()),
                fault=self._fault,
            )

    # -- inside ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        try:
            self._folder.prepare()
            reap(self._folder, self._folder.files())
            with self._folder.lock(0):
                self._writer.tidy()
                self._writer.make_room(0, pinned=True)  # the budget may have become smaller
        except Busy:
            pass  # another worker saves just now, and tidies up itself
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        log.warning("the prefix store in %s: %s", self._folder.path, error)
        with self._guard:
            self._fault = f"{reason_of(error)}: {error}"

    def _contents(self, *, fresh: bool = False) -> Contents:
        with self._guard:
            try:
                return self._index.contents(fresh=fresh)
            except OSError as error:
                self._failed(error)
                return Contents()

    def _proven(self, entry: Entry) -> str | None:
        try:
            self._reader.prove(entry)
        except Damaged as fault:
            return self.condemn(entry.key, str(fault)).reason
        except (Unusable, OSError) as error:
            return str(error)
        return None
