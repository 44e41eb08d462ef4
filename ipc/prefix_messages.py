"""Messages about prefixes: what is warm, learned, or on disk.

The requests about the disk are the same on both sockets: the daemon passes them on.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from .body import Body, Result


class CacheList(Body, frozen=True, kw_only=True):
    """Ask what is stored, of this model and others; answered by `StoredList`, or `StoredListing` by the daemon."""

    METHOD: ClassVar[str] = "cache_list"


class CacheVerify(Body, frozen=True, kw_only=True):
    """Read stored prefixes and compare every byte; answered by `Proven`, or `Verification` by the daemon.

    What is damaged is deleted, and set aside by its reason.
    """

    METHOD: ClassVar[str] = "cache_verify"

    key: str | None = None
    """Only this entry; without it all."""


class CacheClear(Body, frozen=True, kw_only=True):
    """Delete stored prefixes; answered by `Cleared`, or `Clearance` by the daemon."""

    METHOD: ClassVar[str] = "cache_clear"

    name: str | None = None
    """Only those of this name, whichever model's, or with this key."""
    foreign: bool = False
    """Only those that the loaded model can't use."""


class StoredPrefix(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A prefix on disk. Times are Unix seconds."""

    key: str
    """Names its files."""
    name: str | None
    model: str
    """Whose it is; empty where another version of Stoker wrote it."""
    tokens: int
    bytes: int
    created: float
    used: float
    """When it was read last, or saved."""
    uses: int = 0
    pinned: bool = False
    foreign: str | None = None
    """Why the loaded model can't use it: `another model`, or what has changed since."""
    set_aside: str | None = None
    """Why it isn't used for now, though it could be."""


class SetAside(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that isn't used, and why."""

    key: str
    name: str | None
    kind: Literal["damaged", "suspect"]
    """`damaged`: it was deleted. `suspect`: a worker died of it; it is tried again after some good minutes."""
    reason: str
    at: float
    """Unix seconds."""


class ProvenPrefix(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stored prefix after all of it was read."""

    key: str
    name: str | None
    bytes: int
    fault: str | None = None
    """What was wrong with it; it is deleted then."""


class StoredList(Result, frozen=True, kw_only=True):
    """What is on disk, the latest used first."""

    folder: str
    prefixes: tuple[StoredPrefix, ...]
    bytes: int
    """Of all files."""
    budget_bytes: int
    set_aside: tuple[SetAside, ...] = ()
    """The latest first."""


class Proven(Result, frozen=True, kw_only=True):
    """What was read, in the order of the listing."""

    prefixes: tuple[ProvenPrefix, ...]


class Cleared(Result, frozen=True, kw_only=True):
    """What was deleted."""

    count: int
    bytes: int


# -- what is warm, or learned ------------------------------------------------------------------------------


class Prefixes(Body, frozen=True, kw_only=True):
    """Ask which prefixes are warm or learned; answered by `PrefixList`."""

    METHOD: ClassVar[str] = "prefixes"


class Pin(Body, frozen=True, kw_only=True):
    """Warm a learned prefix at every start, or no longer; answered by `Noted`."""

    METHOD: ClassVar[str] = "pin"

    name: str
    pinned: bool = True


class Forget(Body, frozen=True, kw_only=True):
    """Forget a learned prefix, or all of every model; answered by `Noted`."""

    METHOD: ClassVar[str] = "forget"

    name: str | None = None


class KnownPrefix(msgspec.Struct, frozen=True, kw_only=True):
    """A prefix that is warm, or was learned from requests. Its name tells nothing of its text."""

    name: str
    origin: Literal["configured", "learned"]
    tokens: int
    tokens_warm: int
    """Resident now."""
    pinned: bool = False
    """A learned one that is warmed at every start."""
    seen: int = 0
    """Requests that began with it."""
    tokens_saved: int = 0
    """Prompt tokens that these requests would not have to compute, if it were always warm."""
    last_used: float | None = None
    """Unix seconds."""


class PrefixList(Result, frozen=True, kw_only=True):
    """The configured prefixes in their order, then the learned ones, the most valuable first."""

    prefixes: tuple[KnownPrefix, ...]
    notes: tuple[str, ...] = ()
    """What went wrong with the file of what was learned, if anything."""


class Noted(Result, frozen=True, kw_only=True):
    """`pin` or `forget` was carried out for `count` prefixes; 0: none has that name."""

    count: int


class CacheFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of the resident prefix cache since the worker's start."""

    entries: int
    pinned: int
    bytes: int
    limit_bytes: int
    hits: int
    misses: int
    evictions: int


class StoreFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Prefixes on disk. Counts are since the worker's start."""

    entries: int
    """That this worker can use."""
    bytes: int
    """Of all files, others' too."""
    budget_bytes: int
    saved: int
    restored: int
    notes: tuple[str, ...] = ()
    """What is not saved, rejected or set aside, each with its reason."""
    quarantined: int = 0
    """Set aside: damaged and deleted, or suspected of a worker's death."""
