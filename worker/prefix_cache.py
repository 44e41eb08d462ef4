"""KV prefixes resident in memory: what is warm.

An entry is a token sequence with the KV cache that a model computed for it. A request takes the entry that shares
the longest prefix with its prompt, as a copy, and computes only the rest.

Layers are mlx-lm's cache objects, known here only by `nbytes`, `trim(n)` and, where they have them, `keys` and
`values`; so this file needs no mlx. Two of their traits shape it (mlx-lm 0.32.2):

* Assigning into `layer.keys` changes the array *object*, so two requests that share one would overwrite each other:
  `copy.copy` corrupts the entry. `copy.deepcopy` is right, and cheap, for arrays copy on write (0.4 ms, 30 layers).
* Only a plain `KVCache` can forget its last tokens. A sliding window has dropped the ones before them, a recurrent
  state has mixed them in, and `ChunkedKVCache` claims to be able to and is silently wrong. Such entries are
  `exact_only`: they serve prompts that begin with the whole entry.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..ipc.messages import CacheFigures

DEFAULT_LIMIT = 2 << 30
"""Bytes; the same default as `Load.prefix_cache_bytes`."""

LEAST_SHARED = 16
"""A shorter common part of two different sequences isn't worth a copy: so few tokens are computed in the forward that
the rest of the prompt needs anyway. Nearly all chats share their first three or so."""

SPARE = 256
"""Tokens by which a copy's arrays may be longer than what is used of them: `KVCache` grows in such steps."""

_WIDTH = array("q").itemsize


def cache_key(prompt: str | Sequence[int]) -> str:
    """A stable name for a prompt, given as text or as token ids: 64 hexadecimal digits, the same in each process."""
    data = b"text:" + prompt.encode() if isinstance(prompt, str) else b"tokens:" + _packed(prompt)
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Hit:
    """A copy of an entry's KV cache, cut to the `length` tokens shared with the prompt; the caller may write to it.

    Use it on the thread that looked it up: where it was cut, its arrays are not evaluated.
    """

    kv: list[Any]
    length: int
    name: str | None


@dataclass(frozen=True, slots=True)
class EntryFigures:
    """One entry, for listings."""

    name: str | None
    tokens: int
    bytes: int
    pinned: bool
    exact_only: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    key: bytes = field(repr=False)
    """The token ids, packed, so that comparing is one memcmp."""
    kv: list[Any] = field(repr=False)
    size: int
    """In bytes."""
    name: str | None
    pinned: bool
    exact_only: bool

    @property
    def length(self) -> int:
        return len(self.key) // _WIDTH

    def usable(self, prompt: bytes, most: int, known: int) -> int:
        """How many of the prompt's leading tokens this entry can serve, `most` at most; it has the first `known`."""
        if self.exact_only:
            return self.length if self.length <= most and prompt.startswith(self.key) else 0
        shared = min(shared_length(self.key, prompt, known), most)
        return shared if shared == self.length or shared >= LEAST_SHARED else 0


class PrefixCache:
    """Entries under a memory limit. The least recently used goes first; pinned ones never go. Thread-safe.

    Args:
        limit_bytes: Most bytes of all entries together, their arrays' unused capacity included.
    """

    def __init__(self, limit_bytes: int = DEFAULT_LIMIT) -> None:
        if limit_bytes < 0:
            raise ValueError(f"limit_bytes is {limit_bytes}; give 0 (keep nothing) or more")
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # by tokens, the least recently used first
        self._named: dict[str, bytes] = {}
        self._bytes = 0
        self._hits = self._misses = self._evictions = 0

    def put(
        self,
        tokens: Sequence[int],
        kv: list[Any],
        *,
        name: str | None = None,
        pinned: bool = False,
        exact_only: bool = False,
    ) -> bool:
        """Keep `kv`, which holds exactly `tokens`, and belongs to the cache from now on.

        It takes the place of the entry of the same name, and of the one with the same tokens, except that an entry
        with neither name nor pin doesn't displace a pinned one that is as good.

        Args:
            tokens: What the KV cache was computed from; at least one.
            kv: Evaluated layers; never write to them again.
            name: For `discard` and listings.
            pinned: Never evict it.
            exact_only: The layers can't be trimmed: not all of them are plain `KVCache`.

        Returns:
            False if it doesn't fit beside the pinned entries; then nothing has changed.
        """
        if not tokens:
            raise ValueError("an entry needs at least one token")
        size = sum(layer.nbytes for layer in kv)
        entry = _Entry(_packed(tokens), kv, size, name, pinned, exact_only)
        with self._lock:
            if self._is_as_good(entry):
                self._entries.move_to_end(entry.key)
                return True
            superseded = self._superseded_by(entry)
            if not self._make_room(entry.size, superseded):
                return False
            self._entries[entry.key] = entry
            self._bytes += entry.size
            if name is not None:
                self._named[name] = entry.key
        return True

    def lookup(self, tokens: Sequence[int]) -> Hit | None:
        """The longest warm prefix of a prompt, as a copy; at least one token is left to compute.

        Counts as a hit or a miss, and as a use of the entry.
        """
        prompt = _packed(tokens)
        with self._lock:
            entry, length = self._best(prompt, len(tokens) - 1)
            if entry is None:
                self._misses += 1
                return None
            self._hits += 1
            self._entries.move_to_end(entry.key)
        # Outside the lock: nobody writes to an entry's layers, and this reference keeps them.
        return Hit(_copied(entry, length), length, entry.name)

    def covered(self, tokens: Sequence[int]) -> int:
        """How many leading tokens are warm, all of them perhaps. Copies nothing, counts as nothing."""
        prompt = _packed(tokens)
        with self._lock:
            return self._best(prompt, len(tokens))[1]

    def discard(self, name: str) -> bool:
        """Drop the entry of that name, pinned or not; False if there is none."""
        with self._lock:
            key = self._named.get(name)
            if key is None:
                return False
            self._drop(self._entries[key])
            return True

    def evict(self, size: int) -> int:
        """Drop unpinned entries, the least recently used first, until `size` bytes are free; returns how many are."""
        freed = 0
        with self._lock:
            for entry in [entry for entry in self._entries.values() if not entry.pinned]:
                if freed >= size:
                    break
                self._drop(entry)
                self._evictions += 1
                freed += entry.size
        return freed

    def clear(self) -> None:
        """Drop everything, pinned or not. Counts go on."""
        with self._lock:
            self._entries.clear()
            self._named.clear()
            self._bytes = 0

    def entries(self) -> tuple[EntryFigures, ...]:
        """What is kept, the least recently used first."""
        with self._lock:
            return tuple(
                EntryFigures(entry.name, entry.length, entry.size, entry.pinned, entry.exact_only)
                for entry in self._entries.values()
            )

    def names(self) -> frozenset[str]:
        """Names of the entries that have one."""
        with self._lock:
            return frozenset(self._named)

    def statistics(self) -> CacheFigures:
        """Figures of one instant."""
        with self._lock:
            return CacheFigures(
                entries=len(self._entries),
                pinned=sum(entry.pinned for entry in self._entries.values()),
                bytes=self._bytes,
                limit_bytes=self._limit,
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
            )

    # The methods below are called with the lock held.

    def _is_as_good(self, entry: _Entry) -> bool:
        old = self._entries.get(entry.key)
        return old is not None and old.pinned and not entry.pinned and entry.name is None

    def _superseded_by(self, entry: _Entry) -> list[_Entry]:
        """Entries that `entry` replaces: same tokens, same name, or an earlier turn of the same conversation.

        Without the last, each turn would leave a copy of all turns before it. Entries with a name or a pin stay.
        """
        replaced = {entry.key, self._named.get(entry.name) if entry.name is not None else None}
        return [
            old
            for old in self._entries.values()
            if old.key in replaced
            or not (old.pinned or old.name or old.exact_only or entry.exact_only or not entry.key.startswith(old.key))
        ]

    def _make_room(self, size: int, superseded: list[_Entry]) -> bool:
        """Drop the superseded, then evict until `size` bytes fit; or do nothing where they can't."""
        going = list(superseded)
        room = self._limit - self._bytes + sum(entry.size for entry in superseded)
        candidates = (e for e in self._entries.values() if not e.pinned and e not in superseded)
        while room < size:
            victim = next(candidates, None)
            if victim is None:
                return False
            going.append(victim)
            room += victim.size
        for entry in going:
            self._drop(entry)
        self._evictions += len(going) - len(superseded)
        return True

    def _drop(self, entry: _Entry) -> None:
        del self._entries[entry.key]
        self._bytes -= entry.size
        if entry.name is not None:
            del self._named[entry.name]

    def _best(self, prompt: bytes, most: int) -> tuple[_Entry | None, int]:
        """The entry that serves most; among equals the smallest, whose copy costs least."""
        best, length, head = None, 0, b""
        for entry in self._entries.values():
            # Most share nearly all of a prompt or nearly none: what the best one has is compared in one go.
            if min(entry.length, most) < max(length, 1) or not entry.key.startswith(head):
                continue
            usable = entry.usable(prompt, most, length)
            if usable > length or (best is not None and usable == length and entry.size < best.size):
                best, length, head = entry, usable, prompt[: usable * _WIDTH]
        return best, length


def _packed(tokens: Sequence[int]) -> bytes:
    return array("q", tokens).tobytes()


def shared_length(first: bytes, second: bytes, known: int = 0) -> int:
    """Length in tokens of the longest common prefix of packed ids, by bisection: each step compares memory.

    Args:
        first: Packed ids.
        second: Others.
        known: So many tokens are known to be shared.
    """
    low, high = known, min(len(first), len(second)) // _WIDTH
    while low < high:
        middle = (low + high + 1) // 2
        if first[low * _WIDTH : middle * _WIDTH] == second[low * _WIDTH : middle * _WIDTH]:
            low = middle
        else:
            high = middle - 1
    return low


def _copied(entry: _Entry, length: int) -> list[Any]:
    kv = copy.deepcopy(entry.kv)
    cut(kv, entry.length, length)
    return kv


def cut(kv: list[Any], held: int, length: int) -> None:
    """Have layers that hold so many tokens forget all but the first ones. They must be plain `KVCache`."""
    if (surplus := held - length) > 0:
        for layer in kv:
            layer.trim(surplus)
            _shorten(layer, length)


def _shorten(layer: Any, length: int) -> None:
    """Let go of arrays much longer than what is used of them.

    A trimmed layer keeps its capacity, and the first write to a copy copies all of it: a few tokens of a long
    entry would cost as much memory as the whole.
    """
    keys = getattr(layer, "keys", None)
    if keys is not None and keys.shape[2] > length + SPARE:
        layer.keys = keys[..., :length, :]
        layer.values = layer.values[..., :length, :]
