"""Making prefixes resident, chunk by chunk, so that users' requests may go in between."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ...ipc.framing import Frame, Notification, Response
from ...ipc.messages import ChatPrompt, Id, PrefixReport, Progress, Warm, Warmed, WarmPrefix
from ..engine import Emit
from ..errors import ContextExceeded, InsufficientMemory, WorkerError
from ..learning import Opening, key_of, opening_of
from ..normalise import normalised
from ..prefix import SharedPrefix, chat_prefix
from ..prefix_cache import PrefixCache
from ..warmup import get_standard_system_prompt
from .admission import MemoryGuard, check_ids
from .disk import Disk
from .kv import evaluate
from .learner import Learner
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
    """A prefix to be computed. `optional`: that it can't be is no failure of the warmup, only worth a note."""

    name: str
    prefix: SharedPrefix
    fault: str | None = None
    optional: bool = False


def _silent(_: Frame) -> None:
    """Who asked has been answered."""


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
        normalise: Openings are normalised, as requests are.
        learner: Names the learned prefixes, where the request wants them.
        disk: Prefixes are restored from there, and saved there.
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
        normalise: bool = True,
        learner: Learner | None = None,
        disk: Disk | None = None,
    ) -> None:
        self.id = request_id
        self._loaded = loaded
        self._cache = cache
        self._guard = guard
        self._pace = pace
        self._emit = emit
        self._cancelled = False
        self._to_be_finished = body.finish
        self._chunk_seconds = 0.0
        self._started = self._began = time.perf_counter()
        self._normalise = normalise
        self._disk = disk
        self._restoring = disk if body.restore else None
        openings = [(prefix.name, self._opening(prefix)) for prefix in body.prefixes]
        self._plans = [self._planned(name, opening) for name, opening in openings]
        if body.learned and learner is not None:
            known = {key_of(opening) for _, opening in openings}
            learned = learner.best(besides=known)
            self._plans += [self._planned(entry.name, entry.opening, optional=True) for entry in learned]
        self._reports: list[PrefixReport] = []
        self._restored = 0
        self._failed: str | None = None
        self._work = self._warmed()

    def cancel(self) -> None:
        """Give up at the next step. What is computed stays."""
        self._cancelled = True

    def goes_on(self) -> bool:
        """After the result of a cancelled job: whether the rest is to be computed, silently, by further steps."""
        self._plans = [plan for plan in self._plans if not self._is_whole(plan)]
        if not (self._cancelled and self._to_be_finished and self._plans):
            return False
        self._cancelled = self._to_be_finished = False
        self._emit = _silent
        self._reports = []
        self._work = self._warmed()
        return True

    def _is_whole(self, plan: _Plan) -> bool:
        return self._cache.covered(plan.prefix.tokens) == len(plan.prefix.tokens)

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

    def _opening(self, prefix: WarmPrefix) -> Opening:
        system = get_standard_system_prompt(prefix.file) if prefix.system is None else prefix.system
        prompt = ChatPrompt(
            messages=({"role": "system", "content": system},), tools=prefix.tools, template_args=prefix.template_args
        )
        plain = normalised(prompt, normalise=self._normalise)
        return (opening_of(plain) if isinstance(plain, ChatPrompt) else None) or Opening()

    def _planned(self, name: str, opening: Opening, *, optional: bool = False) -> _Plan:
        tokenizer, exact = self._loaded.tokenizer, not self._loaded.trimmable
        try:
            shared = chat_prefix(tokenizer, opening.messages, opening.tools, opening.template_args, exact=exact)
            self._check(shared)
        except WorkerError as error:
            return _Plan(name, SharedPrefix((), 0), error.message, optional)
        return _Plan(name, shared, optional=optional)

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
            self._failed = self._failed or (None if plan.optional else fault)
            self._reports.append(self._report(plan, before, fault, time.perf_counter() - start))

    def _computed(self, plan: _Plan) -> Iterator[None]:
        tokens = plan.prefix.tokens
        hit = self._cache.lookup([*tokens, END])
        cached = hit.length if hit else 0
        if hit is not None and cached == len(tokens) and hit.name == plan.name:
            self._progress(plan, cached, cached)
            return
        self._guard.demand([len(tokens)], 0, self._cache.evict)
        kv = hit.kv if hit else None
        if self._restoring and (restored := self._restoring.restore(tokens, cached, plan.name)):
            kv, cached = restored.kv, restored.length
            self._restored = cached
        prefill = Prefill(self._loaded.model, tokens, kv, cached, pace=self._pace)
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
        if self._disk is not None and len(tokens) > self._restored and not prefill.remaining:
            # Nobody writes to this KV any more: whoever uses the entry gets a copy.
            self._disk.save(plan.name, tokens, prefill.kv, time.perf_counter() - self._began)

    def _progress(self, plan: _Plan, done: int, cached: int) -> None:
        total = len(plan.prefix.tokens)
        body = Progress(target=self.id, stage="warm", done=done, total=total, name=plan.name, cached=cached)
        self._emit(Notification(body))

    def _report(self, plan: _Plan, before: int, fault: str | None, seconds: float) -> PrefixReport:
        warm = self._cache.covered(plan.prefix.tokens)
        source = self._source(warm, before)
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
