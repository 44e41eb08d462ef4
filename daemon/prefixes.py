"""What the live worker knows of prefixes, and orders about those learned or stored."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import TypeVar

from ..ipc.control_messages import Clearance, Counted, PrefixListing, PrefixStatus, StoredListing, Verification
from ..ipc.messages import (
    Body,
    CacheClear,
    CacheList,
    CacheVerify,
    Cleared,
    Figures,
    Forget,
    Loaded,
    Noted,
    Pin,
    Prefixes,
    PrefixList,
    Proven,
    Result,
    StoredList,
)
from .asking import ANSWER_TIMEOUT, ask_ready
from .link import WorkerLink
from .steward import Refusal, Snapshots

R = TypeVar("R", bound=Result)

VERIFY_TIMEOUT = 590.0
"""Seconds for stored prefixes to be read: some 100 GB."""
CLEAR_TIMEOUT = 50.0
"""Seconds for them to be deleted, a save that is under way included."""

EXACT_REUSE = (
    "this model's KV cache can't be cut (sliding windows or recurrent layers), so a prefix is reused only whole: "
    "give its system prompt, tools and template arguments in [[warmup]], or let it be learned"
)

STORED = "`stoker cache list` shows what is stored"
LEARNING_OFF = "learning is switched off: learned_prefixes is 0"
LIST = "`stoker warm list` shows those there are"


class KnownPrefixes:
    """Asks whichever worker is ready.

    Each method raises `Refusal`: `NOT_READY` without a ready worker or an answer in time, `UNSUPPORTED` where
    nothing is learned or stored, `REFUSED` for a name that no prefix has, and for other errors of the worker.

    Args:
        board: Says what is instead, where no worker is ready.
        serving: The link of the ready worker, if there is one.
        learning: Whether the worker is told to learn.
    """

    def __init__(self, board: Snapshots, serving: Callable[[], WorkerLink | None], *, learning: bool = True) -> None:
        self._board = board
        self._serving = serving
        self._learning = learning

    async def listing(self) -> PrefixListing:
        """All of them, and what is wrong with the learned ones."""
        known = await self._ask(Prefixes(), PrefixList)
        notes = known.notes if self._learning else (LEARNING_OFF, *known.notes)
        return PrefixListing(prefixes=known.prefixes, notes=notes)

    async def pin(self, name: str, *, pinned: bool) -> Counted:
        """Warm a learned prefix at every start, or no longer."""
        noted = await self._ask(Pin(name=name, pinned=pinned), Noted)
        return _counted(noted, name)

    async def forget(self, name: str | None) -> Counted:
        """Forget a learned prefix, or without a name all of every model: then none is no error."""
        noted = await self._ask(Forget(name=name), Noted)
        return Counted(count=noted.count) if name is None else _counted(noted, name)

    async def stored(self) -> StoredListing:
        """What is on disk, of this model and others."""
        found = await self._ask(CacheList(), StoredList)
        return StoredListing(**{name: getattr(found, name) for name in StoredListing.__struct_fields__})

    async def verify(self, key: str | None) -> Verification:
        """Read one stored prefix and compare, or all. Of one that has gone meanwhile there is nothing to tell."""
        proven = await self._ask(CacheVerify(key=key), Proven, VERIFY_TIMEOUT)
        return Verification(prefixes=proven.prefixes)

    async def clear(self, name: str | None, *, foreign: bool) -> Clearance:
        """Delete what is stored: all, one name or key, or what the loaded model can't use."""
        cleared = await self._ask(CacheClear(name=name, foreign=foreign), Cleared, CLEAR_TIMEOUT)
        if name is not None and not cleared.count:
            raise Refusal(f"nothing is stored under the name {reprlib.repr(name)}", STORED)
        return Clearance(count=cleared.count, bytes=cleared.bytes)

    async def _ask(self, body: Body, answer: type[R], within: float = ANSWER_TIMEOUT) -> R:
        return await ask_ready(self._board, self._serving, body, answer, within)


def latest(warmed: tuple[PrefixStatus, ...], figures: Figures | None) -> tuple[PrefixStatus, ...]:
    """What the last warmup reported, and for what was warmed in idle time since, that."""
    since = {report.name: PrefixStatus.of(report) for report in figures.prefixes} if figures else {}
    return (*(since.pop(report.name, report) for report in warmed), *since.values())


def reuse_note(loaded: Loaded | None) -> tuple[str, ...]:
    """KV of some models can't be cut, and then a prefix that was warmed differently is of no use."""
    return () if loaded is None or loaded.prefix_reuse == "trimmable" else (EXACT_REUSE,)


def _counted(noted: Noted, name: str) -> Counted:
    if not noted.count:
        # Shortened: a name as long as a frame may be would make an answer longer than one.
        raise Refusal(f"no learned prefix has the name {reprlib.repr(name)}", LIST)
    return Counted(count=noted.count)
