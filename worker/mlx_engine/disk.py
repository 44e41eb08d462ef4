"""The engine's prefixes on disk: restored instead of computed, and saved as soon as they are warm."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from ...ipc.errors import ErrorCode
from ...ipc.framing import ErrorResponse, Response
from ...ipc.messages import Id, StoreFigures
from ..engine import Emit
from ..identity import identify
from ..prefix_cache import cut
from ..saving import Saver
from ..store import PrefixStore
from ..store_ahead import Ahead
from ..store_index import Entry
from ..store_results import Draft, Rejected
from . import persist
from .kv import evaluate
from .loading import LoadedModel
from .shelf import Errand, run

log = logging.getLogger(__name__)

RELEASE_SECONDS = 600.0
"""Of good service, after which a prefix that is suspected of having killed a worker is tried again."""

CALM_SECONDS = 0.5
"""Without a turn of the engine, after which it counts as idle. The first request after a warmup mostly comes at once;
a save beside it doubled its time to the first token (measured: 2,000 tokens, two cores)."""
LEAST_GAINED = 64
"""Tokens that a part of a longer stored prefix must save beyond what is resident; fewer are computed as quickly."""
LEAST_SHARE = 0.25
"""Of an entry that must be saved, whole or part: a file is read whole, some five times as quickly as computed."""

NOT_RESTORED = "nothing is read from disk, because workers died while warming; after ten good minutes it is"
REFUSALS_KEPT = 16
"""Of what could not be restored, for the figures."""


@dataclass(frozen=True, slots=True)
class Restored:
    """KV from disk, evaluated, and this thread's own: `length` tokens of it."""

    kv: list[Any]
    length: int


class Reading:
    """A restore on a thread of its own, so that the engine goes on meanwhile.

    Args:
        work: Reads.
    """

    def __init__(self, work: Callable[[], Restored | None]) -> None:
        self._work = work
        self._ended = threading.Event()
        self._restored: Restored | None = None
        self._error: Exception | None = None
        threading.Thread(target=self._main, name="reader", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after so many seconds at most."""
        return self._ended.wait(seconds)

    def result(self) -> Restored | None:
        """What was read, once it has ended; what went wrong in an unforeseen way is raised."""
        if self._error is not None:
            raise self._error
        return self._restored

    def _main(self) -> None:
        try:
            self._restored = self._work()
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error
        finally:
            self._ended.set()


class Disk:
    """The prefix store of one model. Reading and saving each have a thread of their own.

    Args:
        folder: The store's place; made, private.
        loaded: The model, as it is now.
        budget_bytes: Most bytes of all files.
        ahead: What was compared while the model was loaded.
        release_seconds: After these, what a dead worker is suspected to have died of is tried again.

    Raises:
        OSError: The model's own files can't be read any more.
    """

    def __init__(
        self,
        folder: Path,
        loaded: LoadedModel,
        budget_bytes: int,
        *,
        ahead: Ahead | None = None,
        release_seconds: float = RELEASE_SECONDS,
    ) -> None:
        device = "gpu" if mx.default_device() == mx.Device(mx.gpu) else "cpu"
        identity = identify(loaded.folder, model=loaded.name, layout=persist.layout(loaded.sample), device=device)
        self._template = loaded.sample
        self._trimmable = loaded.trimmable
        self._loading = threading.Lock()
        self.restores = True
        """Whether anything may be read from disk: not after workers died of it."""
        self._store = PrefixStore(folder, identity, budget_bytes, ahead=ahead)
        self._latest_turn = time.monotonic()
        self._saver = Saver(self._store, persist.save, calm=self._is_calm)
        self.unusable = persist.persistable(loaded.sample)
        """Why this model's KV can't be kept on disk; None if it can."""
        damaged = (mark for mark in self._store.statistics().quarantined if mark.kind == "damaged")
        told = (f"{mark.name or mark.key[:8]} was not restored: {mark.reason}" for mark in damaged)
        self._refusals: deque[str] = deque(told, maxlen=REFUSALS_KEPT)
        self._errands = ThreadPoolExecutor(1, "errands")
        self._release = threading.Timer(release_seconds, self._trust_again)
        self._release.daemon = True
        self._release.start()

    def reading(self, tokens: Sequence[int], beyond: int, name: str) -> Reading | None:
        """Begin to restore what is stored of `tokens`; None where there is nothing that is worth it.

        Args:
            tokens: All of them may be restored.
            beyond: So many of them are resident.
            name: Of the prefix, for reasons.
        """
        found = self._found(tokens, beyond)
        return Reading(lambda: self._restored(*found, name)) if found else None

    def restore(self, tokens: Sequence[int], beyond: int, most_bytes: int) -> Restored | None:
        """The same at once, for a request that waits for it, unless the file is larger than that."""
        found = self._found(tokens, beyond)
        if found is None or found[0].size > most_bytes:
            return None
        try:
            return self._restored(*found, found[0].name or found[0].key[:8])
        except Exception:
            # Whatever it is, the request can be computed; and tried again it would meet the same file.
            log.exception("a stored prefix can't be read")
            return None

    def _found(self, tokens: Sequence[int], beyond: int) -> tuple[Entry, int] | None:
        """An entry, and how many of its tokens are of use. All of it is read: too small a part isn't worth that."""
        if not self.restores:
            return None
        if self._trimmable:
            found = self._store.closest(tokens)
        else:
            whole = self._store.find(tokens)
            found = (whole, whole.length) if whole else None
        if found is None:
            return None
        entry, shared = found
        gained = shared - beyond
        enough = gained >= LEAST_GAINED or shared == entry.length
        return found if enough and gained >= max(1, entry.length * LEAST_SHARE) else None

    def _restored(self, entry: Entry, length: int, name: str) -> Restored | None:
        """The journal knows of it while it is loaded: a worker that dies of it is the last that does.

        Comparing is no danger, and may be done for several at a time; loading is done for one, so that one is blamed.
        """
        opened = self._store.open(entry.key)
        if isinstance(opened, Rejected):
            self._refused(name, opened.reason)
            return None
        with opened, self._loading, self._store.begin("restoring", entry.tokens, name):
            try:
                kv = persist.load(opened.path, self._template, entry.length)
            except persist.PersistError as error:
                self._refused(name, self._store.condemn(entry.key, str(error)).reason)
                return None
            cut(kv, entry.length, length)
            evaluate(kv)  # what is lazy on this thread can't be computed on another
            return Restored(kv, length)

    def _trust_again(self) -> None:
        """After good service: what is suspected is tried again, when it is wanted next."""
        self.restores = True
        if released := self._store.release():
            log.info("%d stored prefixes are no longer suspected", released)

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

    def aside(self, request_id: Id, errand: Errand, emit: Emit) -> None:
        """Do something for people, beside the engine; such things are done, and answered, one after the other."""

        def work() -> None:
            try:
                emit(Response(request_id, run(self._store, errand)))
            except Exception as error:
                # The store reports what a disk does, so this is a mistake of ours; whoever asked is to hear of it.
                log.exception("%s failed", errand.METHOD)
                text = f"internal error: {type(error).__name__}: {error}"
                emit(ErrorResponse(request_id, ErrorCode.INTERNAL_ERROR, text))

        self._errands.submit(work)

    def figures(self) -> StoreFigures:
        """Figures of now."""
        now = self._store.statistics()
        troubles = [*([self.unusable] if self.unusable else []), *([now.fault] if now.fault else [])]
        troubles += [] if self.restores else [NOT_RESTORED]
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
            quarantined=len(now.quarantined),
        )

    def close(self, seconds: float) -> None:
        """Write what waits, in this time at most, and leave nothing to be suspected. Any thread."""
        self._release.cancel()
        self._errands.shutdown(wait=False, cancel_futures=True)
        self._saver.close(seconds)
        self._store.close()
