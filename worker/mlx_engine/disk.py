"""The engine's prefixes on disk: restored instead of computed, and saved as soon as they are warm."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from ...ipc.messages import StoreFigures
from ..identity import identify
from ..saving import Saver
from ..store import PrefixStore
from ..store_results import Draft, Rejected
from . import persist
from .loading import LoadedModel

log = logging.getLogger(__name__)

RELEASE_SECONDS = 600.0
"""Of good service, after which a prefix that is suspected of having killed a worker is tried again."""

CALM_SECONDS = 0.5
"""Without a turn of the engine, after which it counts as idle. The first request after a warmup mostly comes at once;
a save beside it doubled its time to the first token (measured: 2,000 tokens, two cores)."""
REFUSALS_KEPT = 16
"""Of what could not be restored, for the figures."""


@dataclass(frozen=True, slots=True)
class Restored:
    """KV from disk, evaluated, and this thread's own: `length` tokens of it."""

    kv: list[Any]
    length: int


class Disk:
    """The prefix store of one model. `restore` runs on the engine's thread, saving on one of its own.

    Args:
        folder: The store's place; made, private.
        loaded: The model, as it is now.
        budget_bytes: Most bytes of all files.
        release_seconds: After these, what a dead worker is suspected to have died of is tried again.

    Raises:
        OSError: The model's own files can't be read any more.
    """

    def __init__(
        self, folder: Path, loaded: LoadedModel, budget_bytes: int, *, release_seconds: float = RELEASE_SECONDS
    ) -> None:
        device = "gpu" if mx.default_device() == mx.Device(mx.gpu) else "cpu"
        identity = identify(loaded.folder, model=loaded.name, layout=persist.layout(loaded.sample), device=device)
        self._template = loaded.sample
        self._store = PrefixStore(folder, identity, budget_bytes)
        self._latest_turn = time.monotonic()
        self._saver = Saver(self._store, persist.save, calm=self._is_calm)
        self.unusable = persist.persistable(loaded.sample)
        """Why this model's KV can't be kept on disk; None if it can."""
        damaged = (mark for mark in self._store.statistics().quarantined if mark.kind == "damaged")
        told = (f"{mark.name or mark.key[:8]} was not restored: {mark.reason}" for mark in damaged)
        self._refusals: deque[str] = deque(told, maxlen=REFUSALS_KEPT)
        self._release = threading.Timer(release_seconds, self._store.release)
        self._release.daemon = True
        self._release.start()

    def restore(self, tokens: Sequence[int], beyond: int, name: str) -> Restored | None:
        """The longest stored prefix of `tokens`, if it is longer than `beyond`; None where it has to be computed.

        The journal knows of it while it is read and evaluated: a worker that dies of it is the last that does.
        """
        entry = self._store.find(tokens)
        if entry is None or entry.length <= beyond:
            return None
        with self._store.begin("restoring", entry.tokens, name):
            opened = self._store.open(entry.key)
            if isinstance(opened, Rejected):
                self._refused(name, opened.reason)
                return None
            with opened:
                try:
                    return Restored(persist.load(opened.path, self._template, entry.length), entry.length)
                except persist.PersistError as error:
                    self._refused(name, self._store.condemn(entry.key, str(error)).reason)
                    return None

    def _refused(self, name: str, reason: str) -> None:
        """Computed again it will be saved again, and the store has forgotten; people want to know all the same."""
        log.warning("the prefix %s is not restored: %s", name, reason)
        self._refusals.append(f"{name} was not restored: {reason}")

    def save(self, name: str, tokens: Sequence[int], kv: list[Any], seconds: float) -> None:
        """Have a prefix saved. The KV is evaluated and never written to again; nobody waits.

        Args:
            name: Takes the place of another entry of that name.
            tokens: All that are in `kv`.
            kv: Of one sequence.
            seconds: What it took to compute.
        """
        if self.unusable is None:
            self._saver.submit(Draft(tuple(tokens), persist.file_size(kv), seconds, name, pinned=True), kv)

    def touch(self) -> None:
        """The engine computes something: saving waits."""
        self._latest_turn = time.monotonic()

    def _is_calm(self) -> bool:
        return time.monotonic() - self._latest_turn >= CALM_SECONDS

    def figures(self) -> StoreFigures:
        """Figures of now."""
        now = self._store.statistics()
        troubles = [*([self.unusable] if self.unusable else []), *([now.fault] if now.fault else [])]
        troubles += self._refusals
        troubles += [f"{count} not saved: {reason}" for reason, count in now.not_saved.items()]
        troubles += [f"{count} rejected: {reason}" for reason, count in now.rejected.items()]
        suspects = (mark for mark in now.quarantined if mark.kind == "suspect")
        troubles += [f"{mark.name or mark.key[:8]} is left out: {mark.reason}" for mark in suspects]
        return StoreFigures(
            entries=now.entries,
            bytes=now.size,
            budget_bytes=now.budget,
            saved=now.saved,
            restored=now.restored,
            notes=tuple(troubles),
        )

    def close(self, seconds: float) -> None:
        """Write what waits, in this time at most, and leave nothing to be suspected. Any thread."""
        self._release.cancel()
        self._saver.close(seconds)
        self._store.close()
