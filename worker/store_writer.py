"""Putting an entry on the disk, under the store's lock."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from .disk_budget import DiskBudget, Shortage
from .identity import FORMAT, Identity
from .manifest import Manifest, encode, key_of, packed
from .store_files import Folder, Partial
from .store_index import Contents, Entry
from .store_results import Draft, NotSaved, Saved
from .store_upkeep import drop, make_room, repair

log = logging.getLogger(__name__)

SLACK = 4096
"""Bytes of room beyond the files' own, for marks and uses."""


class Writer:
    """Changes what is stored. Its methods are called by the lock's holder, and raise OSError.

    Args:
        folder: Of the store.
        identity: What new entries are bound to.
        budget: For all files.
        contents: Reads the folder anew.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        folder: Folder,
        identity: Identity,
        budget: DiskBudget,
        contents: Callable[[], Contents],
        clock: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._identity = identity
        self._digest = identity.digest
        self._budget = budget
        self._contents = contents
        self._now = clock
        self.evicted = 0

    def tidy(self) -> None:
        """Sweep up what dead workers left."""
        repair(self._folder, self._contents(), self._now())

    def make_room(self, size: int, *, pinned: bool) -> Shortage | None:
        """Have room for that many bytes, or say what there is too little of."""
        dropped, shortage = make_room(self._folder, self._contents(), self._budget, size, self._now(), pinned=pinned)
        self.evicted += dropped
        return shortage

    def put(self, draft: Draft, write: Callable[[Path], None]) -> Saved | NotSaved:
        """See `PrefixStore.commit`."""
        started = time.perf_counter()
        key = key_of(self._digest, packed(draft.tokens))
        self.tidy()
        contents = self._contents()
        mark = contents.marks.get(key)
        if mark and mark.kind == "suspect":
            return NotSaved("quarantined", mark.reason)
        old = contents.entries.get(key)
        written = self._renewed(old, draft) if old else self._written(key, draft, write)
        if isinstance(written, NotSaved):
            return written
        self._supersede(written, contents)
        self._folder.sync()
        return Saved(key, written.size, time.perf_counter() - started, written=old is None)

    def _renewed(self, old: Entry, draft: Draft) -> Manifest:
        """The same tokens under the same identity have the same KV: only what it is called may have changed."""
        manifest = self._described(old.key, draft, created=old.created, size=old.size, sha256=old.sha256)
        if (old.name, old.pinned) != (draft.name, draft.pinned):
            self._folder.write(old.key, "json", encode(manifest))
        return manifest

    def _written(self, key: str, draft: Draft, write: Callable[[Path], None]) -> Manifest | NotSaved:
        blank = self._described(key, draft, created=self._now(), size=draft.size, sha256="0" * 64)
        overhead = len(encode(blank)) + SLACK
        if shortage := self.make_room(draft.size + overhead, pinned=draft.pinned):
            return NotSaved(shortage, f"{draft.size} bytes don't fit beside what is worth more")
        with self._folder.partial(key, "safetensors") as data:
            if failure := self._filled(data, draft, write, overhead):
                return failure
            manifest = self._described(key, draft, created=self._now(), size=data.size, sha256=data.sha256())
            data.publish()
        self._folder.write(key, "json", encode(manifest))
        return manifest

    def _filled(self, data: Partial, draft: Draft, write: Callable[[Path], None], overhead: int) -> NotSaved | None:
        try:
            write(data.path)
        except OSError:
            raise
        except Exception as error:
            # mlx raises RuntimeError for a full disk as for anything else; which it is, the volume tells.
            log.warning("a prefix could not be written", exc_info=True)
            full = self._folder.free()[0] < draft.size
            return NotSaved("disk full" if full else "write failed", f"{type(error).__name__}: {error}")
        if data.size <= draft.size:
            return None
        shortage = self.make_room(overhead, pinned=draft.pinned)  # it counts already, and is larger than was said
        return shortage and NotSaved(shortage, f"{data.size} bytes were written where {draft.size} were announced")

    def _described(self, key: str, draft: Draft, *, created: float, size: int, sha256: str) -> Manifest:
        return Manifest(
            format=FORMAT,
            key=key,
            model=self._identity.model,
            identity=dict(self._identity.parts),
            tokens=tuple(draft.tokens),
            name=draft.name,
            pinned=draft.pinned,
            created=created,
            seconds=draft.seconds,
            size=size,
            sha256=sha256,
        )

    def _supersede(self, new: Manifest, contents: Contents) -> None:
        """Drop what the new entry replaces: another one of its name, and the record of its damage."""
        self._folder.remove(f"{new.key}.quarantined")
        for entry in contents.entries.values():
            if new.name is not None and entry.name == new.name and entry.key != new.key and entry.foreign is None:
                drop(self._folder, entry.key)
