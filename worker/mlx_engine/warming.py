"""Making prefixes resident, chunk by chunk, so that users' requests may go in between."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Literal, TypeAlias

from ...ipc.framing import Notification, Response
from ...ipc.messages import Id, PrefixReport, Progress, Warmed
from ..engine import Emit
from ..errors import InsufficientMemory, WorkerError
from ..prefix_cache import Hit, PrefixCache
from .admission import MemoryGuard
from .disk import Disk, Reading, Restored
from .kv import evaluate
from .loading import LoadedModel
from .planning import Plan
from .prefill import Pace, Prefill

log = logging.getLogger(__name__)

Source: TypeAlias = Literal["prefilled", "resident", "restored", "none"]
Outcome: TypeAlias = Literal["succeeded", "abandoned", "failed"]

END = -1
"""No token has this id. A lookup leaves one token at least to compute; with this appended it finds whole prefixes."""

READING_SECONDS = 0.01
"""Of each turn, while a prefix is read from disk: running answers wait no longer for it."""


class WarmJob:
    """One warmup.

    Args:
        request_id: Of the request that it is for.
        plans: What to make warm, in order.
        loaded: The model.
        cache: Where the prefixes go, pinned, each under its name.
        guard: Asked before a prefix is computed.
        pace: Shared with the users' prefills.
        emit: Where progress goes.
        disk: Prefixes are restored from there, and saved there.
        later: What is left when the job is cancelled will be computed later.
    """

    def __init__(
        self,
        request_id: Id,
        plans: Sequence[Plan],
        *,
        loaded: LoadedModel,
        cache: PrefixCache,
        guard: MemoryGuard,
        pace: Pace,
        emit: Emit,
        disk: Disk | None = None,
        later: bool = False,
    ) -> None:
        self.id = request_id
        self.later = later
        self._plans = list(plans)
        self._loaded = loaded
        self._cache = cache
        self._guard = guard
        self._pace = pace
        self._emit = emit
        self._disk = disk
        self._cancelled = False
        self._chunk_seconds = 0.0
        self._started = self._began = time.perf_counter()
        self._reports: list[PrefixReport] = []
        self._restored = 0
        self._ahead: dict[str, Reading] = {}
        self._failed: str | None = None
        self._faulty: set[str] = set()
        self._work = self._warmed()

    def cancel(self) -> None:
        """Give up at the next step. What is computed stays."""
        self._cancelled = True

    def left(self) -> list[Plan]:
        """What isn't whole, and could be."""
        return [plan for plan in self._plans if plan.name not in self._faulty and not self._is_whole(plan)]

    @property
    def reports(self) -> tuple[PrefixReport, ...]:
        """Of what was done so far."""
        return tuple(self._reports)

    @property
    def current(self) -> str:
        """Name of the prefix under way."""
        return self._plans[min(len(self._reports), len(self._plans) - 1)].name

    def step(self, chunk_seconds: float) -> Response | None:
        """Compute one chunk at most; returns the result when all is done or given up."""
        self._chunk_seconds = chunk_seconds
        for _ in self._work:
            return None
        return Response(self.id, self._result())

    def _is_whole(self, plan: Plan) -> bool:
        return self._cache.covered(plan.prefix.tokens) == len(plan.prefix.tokens)

    def _warmed(self) -> Iterator[None]:
        """Warm one prefix after the other; yields after each chunk."""
        for plan in self._plans:
            if self._reports and not self._cancelled:
                yield  # the last chunk of one prefix and the first of the next are two
            start = self._began = time.perf_counter()
            before = self._cache.covered(plan.prefix.tokens)
            self._restored = 0
            fault = plan.fault
            if fault is None and plan.prefix.tokens and not self._cancelled:
                try:
                    yield from self._computed(plan)
                except WorkerError as error:
                    fault = error.message
                except Exception as error:
                    # mlx raises RuntimeError, ValueError and others for what a device refuses; the cache and other
                    # sequences have their own arrays and don't suffer.
                    log.exception("warming a prefix failed")
                    fault = f"{type(error).__name__}: {error}"
            if fault is not None:
                self._faulty.add(plan.name)
            self._failed = self._failed or (None if plan.optional else fault)
            self._reports.append(self._report(plan, before, fault, time.perf_counter() - start))

    def _computed(self, plan: Plan) -> Iterator[None]:
        tokens = plan.prefix.tokens
        hit = self._cache.lookup([*tokens, END])
        cached = hit.length if hit else 0
        if hit is not None and cached == len(tokens) and hit.name == plan.name:
            self._progress(plan, cached, cached)
            return
        self._guard.demand([len(tokens)], 0, self._cache.evict)
        prefill = yield from self._begun(plan, hit)
        start = prefill.done
        self._progress(plan, start, start)
        while prefill.remaining and not self._cancelled:
            prefill.chunk_seconds = self._chunk_seconds
            prefill.step()
            self._progress(plan, prefill.done, start)
            if prefill.remaining:
                yield
        self._keep(plan, prefill)

    def _begun(self, plan: Plan, hit: Hit | None) -> Generator[None, None, Prefill]:
        """A prefill that goes on from what is resident or, where that is longer, on disk."""
        kv, cached = (hit.kv, hit.length) if hit else (None, 0)
        restored = yield from self._read(plan, cached)
        if restored is not None:
            kv, cached = restored.kv, restored.length
            self._restored = cached
        loaded = self._loaded
        return Prefill(loaded.model, plan.prefix.tokens, kv, cached, pace=self._pace, narrow=loaded.narrow)

    def _read(self, plan: Plan, beyond: int) -> Generator[None, None, Restored | None]:
        reading = self._ahead.pop(plan.name, None) or self._reading(plan, beyond)
        self._read_ahead(plan)
        if reading is None:
            return None
        while not reading.wait(READING_SECONDS):
            if self._cancelled:
                return None  # it ends by itself, and its marker with it
            yield
        return reading.result()

    def _reading(self, plan: Plan, beyond: int) -> Reading | None:
        return self._disk.reading(plan.prefix.tokens, beyond, plan.name) if self._disk else None

    def _read_ahead(self, plan: Plan) -> None:
        """Begin to read the next prefix, too: comparing and loading take about as long, on a core each."""
        following = next(iter(self._plans[self._plans.index(plan) + 1 :]), None)
        if following is None or following.fault is not None:
            return
        tokens = following.prefix.tokens
        try:
            self._guard.demand([len(tokens)], 0, lambda _: 0)
        except InsufficientMemory:
            return  # its turn will tell
        if reading := self._reading(following, self._cache.covered(tokens)):
            self._ahead[following.name] = reading

    def _keep(self, plan: Plan, prefill: Prefill) -> None:
        if not prefill.done:
            return
        evaluate(prefill.kv)  # where nothing was computed, it is a lazy cut of another entry
        tokens, exact = prefill.tokens[: prefill.done], not self._loaded.trimmable
        if not self._cache.put(tokens, prefill.kv, name=plan.name, pinned=True, exact_only=exact):
            raise InsufficientMemory("no room beside the other pinned prefixes: raise prefix_cache_bytes")
        if self._disk is not None and len(tokens) > self._restored and not prefill.remaining:
            # Nobody writes to this KV any more: whoever uses the entry gets a copy.
            self._disk.save(plan.name, tokens, prefill.kv, time.perf_counter() - self._began)

    def _progress(self, plan: Plan, done: int, cached: int) -> None:
        total = len(plan.prefix.tokens)
        body = Progress(target=self.id, stage="warm", done=done, total=total, name=plan.name, cached=cached)
        self._emit(Notification(body))

    def _report(self, plan: Plan, before: int, fault: str | None, seconds: float) -> PrefixReport:
        warm = self._cache.covered(plan.prefix.tokens)
        return PrefixReport(
            name=plan.name,
            tokens=len(plan.prefix.tokens),
            tokens_warm=warm,
            source=self._source(warm, before),
            seconds=round(seconds, 6),
            note=fault or self._unfinished(plan, warm) or plan.prefix.note,
            optional=plan.optional,
            failed=fault is not None,
        )

    def _unfinished(self, plan: Plan, warm: int) -> str | None:
        if warm == len(plan.prefix.tokens):
            return None
        return "given up before it was whole; " + ("idle time finishes it" if self.later else "nothing finishes it")

    def _source(self, warm: int, before: int) -> Source:
        """Where most of it came from."""
        if not warm:
            return "none"
        if warm == before:
            return "resident"
        return "restored" if self._restored > warm / 2 else "prefilled"

    def _result(self) -> Warmed:
        whole = all(
            report.tokens_warm == report.tokens or plan.optional
            for plan, report in zip(self._plans, self._reports, strict=True)
        )
        outcome: Outcome = "failed" if self._failed else "abandoned" if self._cancelled and not whole else "succeeded"
        return Warmed(
            outcome=outcome,
            prefixes=tuple(self._reports),
            seconds=round(time.perf_counter() - self._started, 6),
            reason=self._failed or ("cancelled" if outcome == "abandoned" else None),
        )
