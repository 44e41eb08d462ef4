"""Making prefixes resident, chunk by chunk, so that users' requests may go in between."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ...ipc.framing import Notification, Response
from ...ipc.messages import Id, PrefixReport, Progress, Warm, Warmed, WarmPrefix
from ..chat import chat_tokens
from ..engine import Emit
from ..errors import ContextExceeded, InsufficientMemory, WorkerError
from ..prefix import SharedPrefix, shared_prefix
from ..prefix_cache import PrefixCache
from ..warmup import get_standard_system_prompt
from .admission import MemoryGuard, check_ids
from .kv import evaluate
from .loading import LoadedModel
from .prefill import Pace, Prefill

log = logging.getLogger(__name__)

Source: TypeAlias = Literal["prefilled", "resident", "restored", "none"]
Outcome: TypeAlias = Literal["succeeded", "abandoned", "failed"]

DATE_FUNCTION = "strftime_now"
"""By which templates ask for the time."""

END = -1
"""No token has this id. A lookup leaves one token at least to compute; with this appended it finds whole prefixes."""


@dataclass(frozen=True, slots=True)
class _Plan:
    name: str
    prefix: SharedPrefix
    fault: str | None = None


class WarmJob:
    """One `warm` request.

    Args:
        request_id: Its id.
        body: What to make warm.
        loaded: The model.
        cache: Where the prefixes go, pinned, each under its name.
        guard: Asked before a prefix is computed.
        pace: Shared with the users' prefills.
        emit: Where progress goes.
    """

    def __init__(
        self,
        request_id: Id,
        body: Warm,
        *,
        loaded: LoadedModel,
        cache: PrefixCache,
        guard: MemoryGuard,
        pace: Pace,
        emit: Emit,
    ) -> None:
        self.id = request_id
        self._loaded = loaded
        self._cache = cache
        self._guard = guard
        self._pace = pace
        self._emit = emit
        self._cancelled = False
        self._chunk_seconds = 0.0
        self._started = time.perf_counter()
        self._plans = [self._planned(prefix) for prefix in body.prefixes]
        self._reports: list[PrefixReport] = []
        self._failed: str | None = None
        self._work = self._warmed()

    def cancel(self) -> None:
        """Give up at the next step. What is computed stays."""
        self._cancelled = True

    def step(self, chunk_seconds: float) -> Response | None:
        """Compute one chunk at most; returns the result when all is done or given up."""
        self._chunk_seconds = chunk_seconds
        for _ in self._work:
            return None
        return Response(self.id, self._result())

    def _planned(self, prefix: WarmPrefix) -> _Plan:
        system = get_standard_system_prompt(prefix.file) if prefix.system is None else prefix.system

        def render(user: str) -> list[int]:
            messages = ({"role": "system", "content": system}, {"role": "user", "content": user})
            return chat_tokens(self._loaded.tokenizer, messages, prefix.tools, prefix.template_args)

        try:
            shared = shared_prefix(render, exact=not self._loaded.trimmable)
            self._check(shared)
        except WorkerError as error:
            return _Plan(prefix.name, SharedPrefix((), 0), error.message)
        return _Plan(prefix.name, shared)

    def _check(self, prefix: SharedPrefix) -> None:
        size, limit = len(prefix.tokens), self._cache.statistics().limit_bytes
        check_ids(prefix.tokens, self._loaded.vocabulary, "prefixes")
        if size >= self._loaded.context:
            raise ContextExceeded(f"the prefix has {size} tokens; the context takes {self._loaded.context}")
        if self._loaded.cost.bytes(size) > limit:
            raise InsufficientMemory(
                f"the prefix needs {self._loaded.cost.bytes(size) >> 20} MiB; the prefix cache takes "
                f"{limit >> 20} MiB: raise prefix_cache_bytes"
            )

    def _warmed(self) -> Iterator[None]:
        """Warm one prefix after the other; yields after each chunk."""
        for plan in self._plans:
            start = time.perf_counter()
            before = self._cache.covered(plan.prefix.tokens)
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
            self._failed = self._failed or fault
            self._reports.append(self._report(plan, before, fault, time.perf_counter() - start))

    def _computed(self, plan: _Plan) -> Iterator[None]:
        tokens = plan.prefix.tokens
        hit = self._cache.lookup([*tokens, END])
        cached = hit.length if hit else 0
        if hit is not None and cached == len(tokens) and hit.name == plan.name:
            self._progress(plan, cached, cached)
            return
        self._guard.demand([len(tokens)], 0, self._cache.evict)
        prefill = Prefill(self._loaded.model, tokens, hit.kv if hit else None, cached, pace=self._pace)
        self._progress(plan, cached, cached)
        while prefill.remaining and not self._cancelled:
            prefill.chunk_seconds = self._chunk_seconds
            prefill.step()
            self._progress(plan, prefill.done, cached)
            if prefill.remaining:
                yield
        self._keep(plan, prefill)

    def _keep(self, plan: _Plan, prefill: Prefill) -> None:
        if not prefill.done:
            return
        evaluate(prefill.kv)  # where nothing was computed, it is a lazy cut of another entry
        tokens, exact = prefill.tokens[: prefill.done], not self._loaded.trimmable
        if not self._cache.put(tokens, prefill.kv, name=plan.name, pinned=True, exact_only=exact):
            raise InsufficientMemory("no room beside the other pinned prefixes: raise prefix_cache_bytes")

    def _progress(self, plan: _Plan, done: int, cached: int) -> None:
        total = len(plan.prefix.tokens)
        body = Progress(target=self.id, stage="warm", done=done, total=total, name=plan.name, cached=cached)
        self._emit(Notification(body))

    def _report(self, plan: _Plan, before: int, fault: str | None, seconds: float) -> PrefixReport:
        warm = self._cache.covered(plan.prefix.tokens)
        source: Source = "none" if not warm else "resident" if warm == before else "prefilled"
        return PrefixReport(
            name=plan.name,
            tokens=len(plan.prefix.tokens),
            tokens_warm=warm,
            source=source,
            seconds=round(seconds, 6),
            note=fault or plan.prefix.note or self._dated(),
        )

    def _dated(self) -> str | None:
        template = getattr(self._loaded.tokenizer, "chat_template", None)
        if isinstance(template, str) and DATE_FUNCTION in template:
            return "the chat template writes the date into the prompt: the prefix is warm until midnight"
        return None

    def _result(self) -> Warmed:
        whole = all(report.tokens_warm == report.tokens for report in self._reports)
        outcome: Outcome = "failed" if self._failed else "abandoned" if self._cancelled and not whole else "succeeded"
        return Warmed(
            outcome=outcome,
            prefixes=tuple(self._reports),
            seconds=round(time.perf_counter() - self._started, 6),
            reason=self._failed or ("cancelled" if outcome == "abandoned" else None),
        )
