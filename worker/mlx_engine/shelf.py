"""What people want to know of prefixes on disk, and do to them.

It takes as long as the disk does, so it is not for the engine's thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from ...ipc.messages import (
    CacheClear,
    CacheList,
    CacheVerify,
    Cleared,
    Proven,
    ProvenPrefix,
    SetAside,
    StoredList,
    StoredPrefix,
)
from ..store import PrefixStore
from ..store_index import Entry
from ..store_results import Quarantined, Verified

Errand: TypeAlias = CacheList | CacheVerify | CacheClear


def run(store: PrefixStore, errand: Errand) -> StoredList | Proven | Cleared:
    """Do what a request about the store asks for."""
    match errand:
        case CacheVerify(key=None):
            return Proven(prefixes=tuple(map(_proven, store.verify())))
        case CacheVerify(key=str(key)):
            found = store.prove(key)
            return Proven(prefixes=(_proven(found),) if found else ())
        case CacheClear(name=None, foreign=False):
            count, size = store.clear()
            return Cleared(count=count, bytes=size)
        case CacheClear():
            before = store.statistics().size
            count = sum(map(store.forget, dict.fromkeys(_meant(store, errand))))
            return Cleared(count=count, bytes=max(0, before - store.statistics().size))
    return _listed(store)


def _meant(store: PrefixStore, errand: CacheClear) -> Iterator[str]:
    """Keys of what is to go; of a name also what is only set aside."""
    for entry in store.entries():
        if (entry.foreign or not errand.foreign) and errand.name in {None, entry.name, entry.key}:
            yield entry.key
    if not errand.foreign:
        yield from (mark.key for mark in store.statistics().quarantined if errand.name in {mark.name, mark.key})


def _listed(store: PrefixStore) -> StoredList:
    now = store.statistics()
    return StoredList(
        folder=str(store.folder),
        prefixes=tuple(map(_stored, store.entries())),
        bytes=now.size,
        budget_bytes=now.budget,
        set_aside=tuple(map(_set_aside, sorted(now.quarantined, key=lambda mark: -mark.at))),
    )


def _stored(entry: Entry) -> StoredPrefix:
    return StoredPrefix(
        key=entry.key,
        name=entry.name,
        model=entry.model,
        tokens=entry.length,
        bytes=entry.size,
        created=entry.created,
        used=entry.used,
        uses=entry.uses,
        pinned=entry.pinned,
        foreign=entry.foreign,
        set_aside=entry.mark.reason if entry.mark else None,
    )


def _set_aside(mark: Quarantined) -> SetAside:
    return SetAside(key=mark.key, name=mark.name, kind=mark.kind, reason=mark.reason, at=mark.at)


def _proven(verified: Verified) -> ProvenPrefix:
    entry = verified.entry
    return ProvenPrefix(key=entry.key, name=entry.name, bytes=entry.size, fault=verified.fault)
