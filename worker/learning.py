"""Which prefixes real requests share, learned from the requests themselves.

A chat *opens* with its system messages, its tools and its template arguments; all chats with the same opening share
a prefix. The ledger counts openings. One that was seen twice is learned, if its prefix is long enough to be worth it;
the most valuable ones are warmed at the next start without being told.

An opening that was seen once is known only by its checksum: its text is kept from the second time on. Names hold no
text either (`learned-1a2b3c4d`), so that they may be logged and shown.

Here is no I/O and no clock; see `learned_file`. Times are Unix seconds, for they are compared across runs.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Collection, Mapping
from itertools import takewhile
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from ..ipc.messages import ChatPrompt, Prompt
from .chat import flattened
from .errors import WorkerError
from .normalise import SYSTEM_ROLES

T = TypeVar("T")

HALF_LIFE = 3 * 86400.0
"""Seconds after which a use counts half: what was used all last week is worth less than today's after a weekend."""
LEAST_TOKENS = 64
"""Shorter prefixes are computed in one chunk, about as fast as they are looked up."""
MOST_LEARNED = 64
MOST_BYTES = 8 << 20
"""Of all learned openings' texts together."""
LARGEST = 1 << 20
"""Bytes of one opening; larger ones are not learned. The same limit as a warmup file's."""
MOST_SIGHTINGS = 256
"""Openings seen once that are remembered, the latest: they never crowd out what is learned, nor it them."""
FORGOTTEN_FOR = 7 * 86400.0
"""Seconds for which a forgotten opening isn't learned again."""
MOST_FORGOTTEN = 256

Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Amount: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]


class Opening(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a chat begins with before its user says anything."""

    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    template_args: dict[str, Any] = {}

    def canonical(self) -> bytes:
        """Equal for openings that the template can't tell apart.

        It can tell the order of a tool's keys, because it prints them: that is for `normalise` to settle before.
        """
        return b"\n".join(
            [
                msgspec.json.encode(self.messages, order="sorted"),
                msgspec.json.encode(self.tools),
                msgspec.json.encode(self.template_args, order="sorted"),
            ]
        )


Measure: TypeAlias = Callable[[Opening], int]
"""Tokens of the prefix that chats with this opening share. Takes milliseconds; may raise WorkerError."""


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """A prefix that several requests shared."""

    key: str
    """SHA-256 of the opening."""
    opening: Opening
    tokens: Natural
    seen: Natural
    uses: Amount
    """Requests, each counting half as much after every `HALF_LIFE`, as of `last`."""
    last: Amount
    """When it was last used."""
    pinned: bool = False

    @property
    def name(self) -> str:
        """Tells nothing of the text."""
        return f"learned-{self.key[:8]}"

    @property
    def tokens_saved(self) -> int:
        """Tokens that all requests but the first had in common with an earlier one."""
        return self.tokens * max(self.seen - 1, 0)

    def value(self, now: float) -> float:
        """What it is worth to have it warm: tokens saved times recency."""
        return self.tokens * self.uses * _recency(now - self.last)

    def used(self, now: float) -> Learned:
        """The same after one more use."""
        uses = self.uses * _recency(now - self.last) + 1
        return msgspec.structs.replace(self, seen=self.seen + 1, uses=uses, last=now)


class Sighting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An opening that isn't learned: seen once, or too short (then its length is known)."""

    last: Amount
    tokens: Natural | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """All that a ledger knows, as one value."""

    learned: tuple[Learned, ...] = ()
    sightings: dict[str, Sighting] = {}
    forgotten: dict[str, float] = {}
    """Until when, by key."""


def opening_of(prompt: Prompt) -> Opening | None:
    """What the prompt begins with; None where that is nothing, or it is no chat.

    Raises:
        InvalidPrompt: A system message has parts that are no text; the request is refused too.
    """
    if not isinstance(prompt, ChatPrompt):
        return None
    system = takewhile(lambda message: message.get("role") in SYSTEM_ROLES, prompt.messages)
    messages = tuple(flattened(message) for message in system)
    if not messages and not prompt.tools:
        return None
    return Opening(messages=messages, tools=prompt.tools, template_args=prompt.template_args)


def key_of(opening: Opening) -> str:
    """Name of an opening: 64 hexadecimal digits, the same in each run."""
    return hashlib.sha256(opening.canonical()).hexdigest()


class Ledger:
    """Counts openings. Thread-safe, so that it can be saved while requests go on.

    Args:
        record: What an earlier run knew. Entries that don't hold what their key says are left out, and so is what
            exceeds the limits.
        now: Nothing is taken to have been used later than this: the clock may have been set back.
    """

    def __init__(self, record: Record | None = None, now: float = math.inf) -> None:
        record = record or Record()
        self._lock = threading.Lock()
        self._learned: dict[str, Learned] = {}
        self._sizes: dict[str, int] = {}
        self._sightings = _latest(record.sightings, MOST_SIGHTINGS)
        self._forgotten = {
            key: min(until, now + FORGOTTEN_FOR) for key, until in _latest(record.forgotten, MOST_FORGOTTEN).items()
        }
        for entry in record.learned:
            data = entry.opening.canonical()
            if entry.key == hashlib.sha256(data).hexdigest() and len(data) <= LARGEST:
                self._put(msgspec.structs.replace(entry, last=min(entry.last, now)), len(data))

    def observe(self, prompt: Prompt, now: float, measure: Measure, *, keep: bool = False) -> Learned | None:
        """Count a request, normalised as it goes to the template.

        Not to be called for a request that goes on where another worker died: that one was counted.

        Args:
            prompt: Of any kind; only chats are counted.
            now: The time.
            measure: Called once for each opening, when it is learned.
            keep: Its client said that more requests will begin alike: it is learned at first sight.

        Returns:
            What the prompt's opening is known as; None while it isn't learned.
        """
        opening = opening_of(prompt)
        data = opening.canonical() if opening else b""
        if opening is None or len(data) > LARGEST:
            return None
        key = hashlib.sha256(data).hexdigest()
        with self._lock:
            known = self._used(key, now)
            seen = int(key in self._sightings)
            before = self._seen_again(key, now, keep=keep) if known is None else None
        if before is None:
            return known
        tokens = _measured(opening, measure)
        earlier = Learned(key=key, opening=opening, tokens=tokens, seen=seen, uses=seen, last=before.last)
        with self._lock:
            return self._learn(earlier.used(now), len(data))

    def best(self, count: int, now: float, *, besides: Collection[str] = ()) -> tuple[Learned, ...]:
        """The prefixes most worth warming: pinned ones first, then by value.

        Args:
            count: At most so many, pinned ones not counted.
            now: The time.
            besides: Keys of openings that are warmed anyway.
        """
        ranked = [entry for entry in self.listing(now) if entry.key not in besides]
        pinned = [entry for entry in ranked if entry.pinned]
        return (*pinned, *[entry for entry in ranked if not entry.pinned][: max(count, 0)])

    def listing(self, now: float) -> tuple[Learned, ...]:
        """All learned prefixes, the most valuable first."""
        with self._lock:
            entries = tuple(self._learned.values())
        return tuple(sorted(entries, key=lambda entry: entry.value(now), reverse=True))

    def pin(self, name: str, *, pinned: bool = True) -> bool:
        """Keep a prefix whatever it is worth, and warm it always; or no longer so. False where none has the name."""
        with self._lock:
            entry = self._named(name)
            if entry is not None:
                self._learned[entry.key] = msgspec.structs.replace(entry, pinned=pinned)
            return entry is not None

    def forget(self, name: str, now: float) -> bool:
        """Drop a prefix, pinned or not, and don't learn it again for a while. False where none has the name."""
        with self._lock:
            entry = self._named(name)
            if entry is None:
                return False
            self._drop(entry.key)
            self._forgotten.pop(entry.key, None)
            self._forgotten = _latest({**self._forgotten, entry.key: now + FORGOTTEN_FOR}, MOST_FORGOTTEN)
            return True

    def clear(self) -> int:
        """Drop all prefixes, pinned or not, and what was seen once; returns how many. What is forgotten stays so."""
        with self._lock:
            count = len(self._learned)
            self._learned.clear()
            self._sizes.clear()
            self._sightings.clear()
            return count

    def record(self) -> Record:
        """All of it, for `Ledger(record)` in the next run."""
        with self._lock:
            return Record(
                learned=tuple(self._learned.values()),
                sightings=dict(self._sightings),
                forgotten=dict(self._forgotten),
            )

    # The methods below are called with the lock held, or before anyone else knows of the ledger.

    def _used(self, key: str, now: float) -> Learned | None:
        if known := self._learned.get(key):
            known = self._learned[key] = known.used(now)
        return known

    def _seen_again(self, key: str, now: float, *, keep: bool) -> Sighting | None:
        """The sighting because of which it shall be learned now, if any; else this one is noted, unless forgotten."""
        if now < self._forgotten.get(key, -math.inf):
            return None
        before = self._sightings.get(key)
        if before is None and keep:
            return Sighting(last=now)
        if before is not None and before.tokens is None:
            return before
        self._note(key, Sighting(last=now, tokens=before.tokens if before else None))
        return None

    def _learn(self, entry: Learned, size: int) -> Learned | None:
        if entry.tokens < LEAST_TOKENS:
            self._note(entry.key, Sighting(last=entry.last, tokens=entry.tokens))
            return None
        self._sightings.pop(entry.key, None)
        self._put(entry, size)
        return self._learned.get(entry.key)

    def _put(self, entry: Learned, size: int) -> None:
        """Keep the entry; drop the least valuable others until the limits hold, or it where all others are pinned."""
        self._learned[entry.key] = entry
        self._sizes[entry.key] = size
        while len(self._learned) > MOST_LEARNED or sum(self._sizes.values()) > MOST_BYTES:
            now = max(each.last for each in self._learned.values())
            others = (each for each in self._learned.values() if not each.pinned and each is not entry)
            self._drop(min(others, key=lambda each: each.value(now), default=entry).key)

    def _note(self, key: str, sighting: Sighting) -> None:
        self._sightings.pop(key, None)
        self._sightings[key] = sighting  # the latest, in order
        if len(self._sightings) > MOST_SIGHTINGS:
            del self._sightings[next(iter(self._sightings))]

    def _drop(self, key: str) -> None:
        del self._learned[key], self._sizes[key]

    def _named(self, name: str) -> Learned | None:
        return next((entry for entry in self._learned.values() if entry.name == name), None)


def _measured(opening: Opening, measure: Measure) -> int:
    try:
        return measure(opening)
    except WorkerError:
        return 0  # the template takes this request, but no chat of system and user alone: nothing to warm


def _recency(age: float) -> float:
    """From 1 down to 0. An age below 0 comes from a clock that was set back, and counts as 0."""
    return float(2.0 ** (-max(age, 0.0) / HALF_LIFE))


def _latest(known: Mapping[str, T], count: int) -> dict[str, T]:
    """The last so many, which came last."""
    return dict(list(known.items())[-count:])
