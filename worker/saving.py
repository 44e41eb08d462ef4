"""Saving in the background: a prefix goes to disk as soon as it is warm, and nobody who computes waits for it.

One thread does it, one prefix after the other; and other slow work with the store, where it is asked to. What waits
is KV that is resident anyway; it is bounded in bytes, for what is resident may be evicted meanwhile. A newer value
for the same name takes the older one's place in the queue.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from .store import PrefixStore
from .store_results import Draft, NotSaved, Saved

log = logging.getLogger(__name__)

DEFAULT_LIMIT = 4 << 30
"""Bytes that wait."""
PATIENCE = 10.0
"""Seconds that a save waits for a calm moment at most: an engine that is never idle must not keep it off the disk."""
LOOK = 0.05
"""Seconds between two looks whether it is calm."""
MOST_WAITING = 256
"""Jobs that wait, however small."""

Write: TypeAlias = Callable[[Any, Path], None]
"""Writes KV into a file that exists and is empty."""
Done: TypeAlias = Callable[[Draft, Saved | NotSaved], None]


@dataclass(frozen=True, slots=True)
class SavingFigures:
    """One instant of a saver.

    Attributes:
        waiting: Jobs not yet done, the one in progress included.
        waiting_bytes: Of their data files.
        refused: How many were not taken because too many bytes waited.
        failed: How many could not be saved, by reason.
    """

    waiting: int
    waiting_bytes: int
    refused: int
    failed: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Job:
    """`run` returns why it failed, or None."""

    run: Callable[[], str | None]
    size: int = 0


class Saver:
    """One I/O thread that puts evaluated KV into a store.

    Args:
        store: Where it goes.
        write: Writes one KV; called on the thread.
        limit_bytes: Most bytes that wait; one prefix is always taken, however big.
        done: Told of each result, on the thread.
        calm: Whether writing now disturbs nobody: it takes a core for a tenth of a second for each 100 MB.
    """

    def __init__(
        self,
        store: PrefixStore,
        write: Write,
        *,
        limit_bytes: int = DEFAULT_LIMIT,
        done: Done | None = None,
        calm: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._calm = calm
        self._write = write
        self._limit = limit_bytes
        self._done = done
        self._news = threading.Condition()
        self._jobs: OrderedDict[str, _Job] = OrderedDict()
        self._current: _Job | None = None
        self._refused = 0
        self._failed: Counter[str] = Counter()
        self._closed = False
        self._thread = threading.Thread(target=self._main, name="saver", daemon=True)
        self._thread.start()

    def submit(self, draft: Draft, kv: Any) -> bool:
        """Have a prefix saved some time soon; never waits for the disk.

        Args:
            draft: What it is.
            kv: Evaluated, and never written to again.

        Returns:
            False if it was not taken: too much waits already, or the saver is closed.
        """
        job = _Job(lambda: self._saved(draft, kv), draft.size)
        return self._take(f"save {draft.name or self._store.key(draft.tokens)}", job)

    def call(self, name: str, work: Callable[[], None]) -> bool:
        """Have other slow work done on this thread, after what waits already.

        Args:
            name: The same work that waits already is replaced by this.
            work: What to do; what it raises is logged and counted by type.

        Returns:
            False if it was not taken.
        """

        def run() -> None:
            work()

        return self._take(f"call {name}", _Job(run))

    def flush(self, seconds: float) -> bool:
        """Wait until all is written; False if it is not by then."""
        with self._news:
            return self._news.wait_for(lambda: not self._jobs and self._current is None, seconds)

    def close(self, seconds: float) -> bool:
        """Take nothing more, write what waits for as long as that, and end; False if something was not written.

        A save in progress then goes on; a process that ends meanwhile leaves nothing half-written behind.
        """
        end = time.monotonic() + seconds
        with self._news:
            self._closed = True
            self._news.notify_all()
        finished = self.flush(seconds)
        with self._news:
            self._jobs.clear()
            self._news.notify_all()
        self._thread.join(max(0.0, end - time.monotonic()))
        return finished

    def figures(self) -> SavingFigures:
        """Figures of now."""
        with self._news:
            waiting = len(self._jobs) + (self._current is not None)
            return SavingFigures(waiting, self._waiting_bytes(), self._refused, dict(self._failed))

    def _take(self, slot: str, job: _Job) -> bool:
        with self._news:
            older = self._jobs.get(slot)
            waiting = self._waiting_bytes() - (older.size if older else 0)
            full = bool(waiting and waiting + job.size > self._limit) or len(self._jobs) >= MOST_WAITING
            if self._closed or full:
                self._refused += 1
                return False
            self._jobs[slot] = job
            self._news.notify_all()
        return True

    def _waiting_bytes(self) -> int:
        current = self._current.size if self._current else 0
        return current + sum(job.size for job in self._jobs.values())

    def _main(self) -> None:
        while job := self._next():
            failure: str | None = None
            try:
                failure = job.run()
            except Exception as error:
                # The next job may be luckier; the store reports what a disk does, so this is a mistake of ours.
                log.exception("a job of the store's failed")
                failure = type(error).__name__
            del job  # or its KV would stay in memory until the next one comes
            with self._news:
                self._current = None
                if failure:
                    self._failed[failure] += 1
                self._news.notify_all()

    def _next(self) -> _Job | None:
        with self._news:
            # No deadline: an idle saver has nothing to do, and the process ends without it.
            self._news.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return None
            _, self._current = self._jobs.popitem(last=False)
            return self._current

    def _wait_for_calm(self) -> None:
        """Until it is calm, patience is over, or the saver is to end."""
        end = time.monotonic() + PATIENCE
        with self._news:
            while not (self._closed or self._calm() or time.monotonic() >= end):
                self._news.wait(LOOK)

    def _saved(self, draft: Draft, kv: Any) -> str | None:
        self._wait_for_calm()
        result = self._store.commit(draft, lambda path: self._write(kv, path))
        if self._done is not None:
            self._done(draft, result)
        if isinstance(result, NotSaved):
            log.warning("the prefix %s is not on disk: %s: %s", draft.name, result.reason, result.detail)
            return result.reason
        log.info("saved the prefix %s in %.2f s (%d bytes)", draft.name, result.seconds, result.size)
        return None
