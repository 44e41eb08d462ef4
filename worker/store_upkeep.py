"""What a holder of the store's lock does to its files: sweep up, make room, drop."""

from __future__ import annotations

import logging

from .disk_budget import DiskBudget, Shortage, victims
from .quarantine import DOINGS, Mark, forget_old, set_aside
from .store_files import Folder, StoredFile
from .store_index import OTHER_FORMAT, Contents, Entry

log = logging.getLogger(__name__)


def drop(folder: Folder, key: str) -> None:
    """Remove an entry: the manifest first, so that nobody finds half of it.

    Raises:
        OSError: The folder can't be written to.
    """
    for ending in ("json", "safetensors", "uses"):
        folder.remove(f"{key}.{ending}")


def condemn(folder: Folder, key: str, mark: Mark) -> None:
    """Remove what is damaged, and leave the reason. Nothing is raised: who reads it finds the damage again."""
    log.warning("the stored prefix %s is damaged: %s", mark.name or key, mark.reason)
    try:
        drop(folder, key)
        set_aside(folder, key, mark)
    except OSError as error:
        log.warning("what is damaged can't be removed: %s", error)


def repair(folder: Folder, contents: Contents, now: float) -> None:
    """Sweep up what dead workers left, and what can be seen to be damaged without reading data.

    Raises:
        OSError: The folder can't be written to.
    """
    present = {file.name: file for file in contents.files if not file.partial}
    for file in contents.files:
        if file.partial:
            if leftover := folder.abandoned(file):
                leftover.close()
        elif file.ending in ("safetensors", "uses") and f"{file.key}.json" not in present:
            folder.remove(file.name)
    faults = dict(contents.damaged)
    for key, entry in contents.entries.items():
        if fault := visible_fault(entry, present.get(f"{key}.safetensors")):
            faults[key] = fault
    for key, fault in faults.items():
        known = contents.entries.get(key)
        condemn(folder, key, Mark(kind="damaged", reason=fault, name=known.name if known else None, at=now))
    forget_old(folder, dict(contents.marks))


def visible_fault(entry: Entry, data: StoredFile | None) -> str | None:
    """What the directory alone shows to be wrong with an entry."""
    if data is None:
        return "the data file is missing"
    if entry.foreign != OTHER_FORMAT and data.size != entry.size:
        return f"the data file has {data.size} bytes, not {entry.size}"
    return None


def make_room(
    folder: Folder, contents: Contents, budget: DiskBudget, size: int, now: float, *, pinned: bool
) -> tuple[int, Shortage | None]:
    """Drop entries until `size` more bytes may be written.

    Returns:
        How many were dropped, and what there is too little of; then none were.

    Raises:
        OSError: The folder can't be read or written to.
    """
    room, shortage = budget.room(folder)
    going = victims(contents.entries.values(), size - room, now, pinned=pinned)
    if going is None:
        return 0, shortage
    for entry in going:
        log.info("evicting the stored prefix %s: %s", entry.name or entry.key, entry.foreign or "no room")
        drop(folder, entry.key)
    return len(going), None


def clear(folder: Folder, files: tuple[StoredFile, ...]) -> tuple[int, int]:
    """Remove everything but what living workers are writing; returns entries and bytes.

    Raises:
        OSError: The folder can't be written to.
    """
    entries = size = 0
    for file in sorted(files, key=lambda file: file.ending != "json"):
        if file.partial or file.ending in DOINGS:
            leftover = folder.abandoned(file)
            if leftover is None:
                continue
            leftover.close()
        else:
            folder.remove(file.name)
        entries += file.ending == "json" and not file.partial
        size += file.size
    return entries, size
