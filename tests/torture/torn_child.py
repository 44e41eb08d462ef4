"""A worker that saves, restores and evicts at random until it is killed. Run by `test_torn_saves`.

    torn_child.py FOLDER SEED bytes|mlx once|on

First it opens the store, as each worker does after the last one died, and compares all that the store serves with
what must be in it, which follows from the tokens alone. It prints that as a line of JSON. With `on` it then goes on.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stoker.worker.identity import Identity
from stoker.worker.saving import Saver
from stoker.worker.store import PrefixStore
from stoker.worker.store_results import Draft, Rejected

BUDGET = 2_500_000
"""Bytes; about a dozen entries, so that most saves evict."""
LIFETIME = 60.0
"""Seconds after which it ends by itself, should nobody kill it."""
STEP = 16_384
"""Bytes written at once, so that a kill meets half-written files."""


class BytesPayload:
    """Random bytes stand for KV."""

    model = "bytes"

    def size(self, tokens: tuple[int, ...]) -> int:
        return tokens[0] * 997 + 1

    def expected(self, tokens: tuple[int, ...]) -> bytes:
        return random.Random(repr((self.model, tokens))).randbytes(self.size(tokens))

    def write(self, tokens: Any, path: Path) -> None:
        data = self.expected(tokens)
        with path.open("r+b", buffering=0) as file:
            for start in range(0, len(data), STEP):
                file.write(data[start : start + STEP])

    def is_right(self, path: str, tokens: tuple[int, ...]) -> bool:
        return Path(path).read_bytes() == self.expected(tokens)


class MlxPayload:
    """Real KV caches, small, written and read by the engine's own functions."""

    model = "mlx"

    def __init__(self) -> None:
        import mlx.core as mx  # noqa: PLC0415 - most rounds need no mlx, whose import takes a second
        from mlx_lm.models.cache import ArraysCache, KVCache, RotatingKVCache  # noqa: PLC0415

        from stoker.worker.mlx_engine import persist  # noqa: PLC0415

        self._mx, self._persist = mx, persist
        self._fresh: Callable[[], list[Any]] = lambda: [KVCache(), RotatingKVCache(max_size=64), ArraysCache(1)]

    def expected(self, tokens: tuple[int, ...]) -> list[Any]:
        mx, kv = self._mx, self._fresh()
        keys = iter(mx.random.split(mx.random.key(tokens[0] * 7919 + tokens[1]), 5))
        for layer in kv[:2]:
            layer.update_and_fetch(*(mx.random.normal((1, 4, len(tokens), 64), key=next(keys)) for _ in range(2)))
        kv[2][0] = mx.random.normal((1, 8), key=next(keys))
        mx.eval([layer.state for layer in kv])
        return kv

    def size(self, tokens: tuple[int, ...]) -> int:
        return self._persist.file_size(self.expected(tokens))

    def write(self, tokens: Any, path: Path) -> None:
        self._persist.save(self.expected(tokens), path)

    def is_right(self, path: str, tokens: tuple[int, ...]) -> bool:
        restored = self._persist.load(path, self._fresh(), len(tokens))
        pairs = zip(self._states(restored), self._states(self.expected(tokens)), strict=True)
        return all(bool(self._mx.array_equal(one, other).item()) for one, other in pairs)

    def _states(self, kv: list[Any]) -> list[Any]:
        return [*(array for layer in kv[:2] for array in layer.keys_and_values()), kv[2][0]]


class Worker:
    """One worker's life.

    Args:
        folder: The store's.
        seed: Of what it does.
        payload: What stands for KV.
    """

    def __init__(self, folder: Path, seed: int, payload: BytesPayload | MlxPayload) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        self._payload = payload
        self._store = self._opened()
        self._saver = Saver(self._store, payload.write)

    def report(self) -> dict[str, Any]:
        """Compare everything that is served; released suspects too."""
        suspects = sum(mark.kind == "suspect" for mark in self._store.statistics().quarantined)
        damaged = sum(mark.kind == "damaged" for mark in self._store.statistics().quarantined)
        if self._random.random() < 0.7:
            self._store.release()
        served, wrong = 0, []
        for entry in self._store.entries():
            if entry.servable:
                right = self._compare(entry.key)
                served += right is not None
                wrong += [entry.key] if right is False else []
        foreign = [verified.fault for verified in self._store.verify() if verified.fault]
        size = self._store.statistics().size
        return {
            "served": served,
            "wrong": wrong,
            "suspects": suspects,
            "damaged": damaged,
            "faults": foreign,
            "over": max(0, size - BUDGET),
            "fault": self._store.statistics().fault,
        }

    def live(self) -> None:
        """Do something, again and again."""
        actions = [self._save] * 5 + [self._save_here] * 3 + [self._restore] * 3
        actions += [self._evict, self._reopen, self._release, self._warm]
        end = time.monotonic() + LIFETIME
        while time.monotonic() < end:
            self._random.choice(actions)()

    def _opened(self) -> PrefixStore:
        identity = Identity(self._payload.model, {"weights": self._payload.model})
        return PrefixStore(self._folder, identity, BUDGET, reserve_bytes=0)

    def _tokens(self) -> tuple[int, ...]:
        """Few different ones, so that they are saved, evicted and saved again."""
        length = self._random.randrange(2, 400)
        return (length, *range(self._random.randrange(3), length))[:length]

    def _draft(self, tokens: tuple[int, ...]) -> Draft:
        name = self._random.choice([None, "system", f"learned {len(tokens) % 7}"])
        pinned = self._random.random() < 0.2
        return Draft(tokens, self._payload.size(tokens), self._random.random(), name, pinned)

    def _save(self) -> None:
        """In the background, as the engine does."""
        tokens = self._tokens()
        self._saver.submit(self._draft(tokens), tokens)
        if self._random.random() < 0.5:
            self._saver.flush(10)

    def _save_here(self) -> None:
        tokens = self._tokens()
        self._store.commit(self._draft(tokens), lambda path: self._payload.write(tokens, path))

    def _restore(self) -> None:
        entries = [entry for entry in self._store.entries() if entry.servable]
        if entries:
            entry = self._random.choice(entries)
            with self._store.begin("restoring", entry.tokens, entry.name):
                if self._compare(entry.key) is False:
                    sys.exit(3)

    def _compare(self, key: str) -> bool | None:
        """Whether what is served is right; None if nothing is."""
        opened = self._store.open(key)
        if isinstance(opened, Rejected):
            return None
        with opened:
            return self._payload.is_right(opened.path, opened.entry.tokens)

    def _evict(self) -> None:
        if entries := self._store.entries():
            self._store.forget(self._random.choice(entries).key)

    def _reopen(self) -> None:
        self._opened()

    def _release(self) -> None:
        self._store.release()

    def _warm(self) -> None:
        with self._store.begin("warming", self._tokens(), "system"):
            pass


def main() -> None:
    folder, seed, kind, mode = sys.argv[1:]
    logging.disable()
    worker = Worker(Path(folder), int(seed), MlxPayload() if kind == "mlx" else BytesPayload())
    sys.stdout.write(json.dumps(worker.report()) + "\n")
    sys.stdout.flush()
    if mode == "on":
        worker.live()


if __name__ == "__main__":
    main()
