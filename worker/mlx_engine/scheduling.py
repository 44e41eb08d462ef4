"""What is computed next.

A turn is one decoding step for all running sequences, then a chunk's time of prefill: of the users' requests that
have the least to do, or, while no user waits, of a warmup. So nobody waits for longer than a chunk and a step. What
an abandoned warmup left is computed while there is nothing else at all.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from ...ipc.framing import Frame, Notification
from ...ipc.messages import Delta, Figures, Generate, Id, Load, Progress, Prompt, Step, TokenCount, Warm
from ..engine import Emit
from ..errors import GenerationFailed
from ..prefix_cache import PrefixCache
from .admission import MemoryGuard
from .background import NAME, Background
from .batching import decoder_for
from .decoding import Decoded, Decoder, Held, Start
from .disk import Disk
from .generation import Generation
from .intake import Intake
from .learner import Learner
from .loading import LoadedModel
from .planning import Plan, Planner
from .prefill import SMALLEST_CHUNK, Pace, Prefill
from .renewal import Renewal
from .warming import WarmJob

log = logging.getLogger(__name__)

WARM_SHARE = 0.25
"""While sequences decode, a warmup's chunk gets this share of the time budget: each of them waits for it at each
token, and nobody waits for the warmup."""
QUICKLY_READ = 128 << 20
"""Bytes that are read from disk for a request while others decode: a fifth of a second for them at worst."""
GUESSED_PACE = 100.0
"""Tokens per second of prefill before any was measured."""

Reason: TypeAlias = Literal["stop", "length", "cancelled"]


class Scheduler:
    """Owns a loaded model's sequences, and its prefix cache.

    Args:
        loaded: The model.
        body: Its `load` request, for limits.
        emit: Where answers go.
        learner: Counts what requests begin with; None learns nothing.
        disk: Where warm prefixes are saved and restored from; None keeps none.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        body: Load,
        emit: Emit,
        learner: Learner | None = None,
        disk: Disk | None = None,
    ) -> None:
        self.loaded = loaded
        self._disk = disk
        self._learner = learner
        self.cache = PrefixCache(body.prefix_cache_bytes)
        self._emit = emit
        self._chunk_seconds = body.chunk_seconds
        self._max_batch = max(1, body.max_batch)
        self._guard = MemoryGuard(body.memory_limit_bytes, loaded.cost)
        self._pace = Pace()
        self._generation_tps = 0.0
        self._ends = frozenset(loaded.tokenizer.eos_token_ids)
        self._waiting: dict[Id, Generation] = {}
        self._decoding: dict[Id, Generation] = {}
        self._warming: deque[WarmJob] = deque()
        self._planner = Planner(loaded, self.cache, normalise=body.normalise)
        self._background = Background(self._unasked, Renewal(self._planner), emit)
        self._intake = Intake(loaded, learner, normalise=body.normalise)
        self._decoder = self._new_decoder()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute."""
        return not (self._waiting or self._decoding or self._warming or self._background.active)

    @property
    def due(self) -> float | None:
        """Seconds after which a turn is due although there is nothing to compute; None: never."""
        return self._background.due

    def figures(self, memory_bytes: int) -> Figures:
        """Statistics of now and of the latest work."""
        return Figures(
            memory_bytes=memory_bytes,
            cache=self.cache.statistics(),
            running=len(self._waiting) + len(self._decoding),
            prompt_tps=round(self._pace.tokens_per_second, 2),
            generation_tps=round(self._generation_tps, 2),
            store=self._disk.figures() if self._disk else None,
            background=self._background.current,
            prefixes=self._background.reports,
        )

    # -- requests --------------------------------------------------------------------------------------------

    def generate(self, request_id: Id, body: Generate, submitted: float) -> None:
        """Take a generation.

        Raises:
            WorkerError: It is refused.
        """
        generation, over = self._intake.generation(request_id, body, submitted)
        if over:
            self._finish([], generation, over)  # the earlier worker died before it could say so
            return
        self._make_room(generation)
        self._waiting[request_id] = generation
        generation.cached = 0 if body.probe else self.cache.covered(generation.tokens[:-1])
        self._progress(generation, generation.cached)

    def count(self, prompt: Prompt) -> TokenCount:
        """How many tokens a generation would count for a prompt.

        Raises:
            InvalidPrompt: It can't be rendered.
        """
        return self._intake.count(prompt)

    def _make_room(self, newcomer: Generation) -> None:
        others = sorted(g.planned for g in (*self._waiting.values(), *self._decoding.values()))
        lengths = [*others[-(self._max_batch - 1) :], newcomer.planned] if self._max_batch > 1 else [newcomer.planned]
        held = self._decoder.nbytes + sum(g.prefill.nbytes for g in self._waiting.values() if g.prefill)
        self._guard.demand(lengths, held, self.cache.evict)

    def warm(self, request_id: Id, body: Warm) -> None:
        """Take a warmup; it is computed while no user's prompt is waiting."""
        plans = self._planner.plans(body, self._learner)
        self._background.yield_to(plans)
        if self._disk is not None:
            self._disk.restores = body.restore
        self._warming.append(self._job(request_id, plans, self._emit, later=body.finish))

    def _unasked(self, plans: Sequence[Plan], emit: Emit) -> WarmJob:
        return self._job(NAME, plans, emit, later=False)

    def _job(self, request_id: Id, plans: Sequence[Plan], emit: Emit, *, later: bool) -> WarmJob:
        return WarmJob(
            request_id,
            plans,
            loaded=self.loaded,
            cache=self.cache,
            guard=self._guard,
            pace=self._pace,
            emit=emit,
            disk=self._disk,
            later=later,
        )

    def cancel(self, target: Id) -> None:
        """Give a request up and answer it; its KV so far stays cached. Unknown ids are those already answered."""
        if generation := self._waiting.pop(target, None):
            prefill = generation.prefill
            if prefill is not None and prefill.done > generation.cached:
                self._keep(generation, Held(prefill.tokens[: prefill.done], prefill.kv))
            self._finish([], generation, "cancelled")
        elif generation := self._decoding.pop(target, None):
            self._keep(generation, self._decoder.remove(target))
            self._finish([], generation, "cancelled")
        for job in [job for job in self._warming if job.id == target]:
            job.cancel()
            self._warm_step(job)

    # -- computing -------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """One decoding step, one chunk's time."""
        if self._decoding:
            self._decode()
        if (generation := self._next()) is not None:
            self._prefills(generation)
        elif self._warming:
            self._warm_step(self._warming[0])
        elif not self._decoding:
            self._background.look()
            self._background.step(self._chunk_seconds)

    def _next(self) -> Generation | None:
        """Whose prompt is to be computed now."""
        if len(self._decoding) >= self._max_batch:
            return None
        return min(self._waiting.values(), key=self._urgency, default=None)

    def _prefills(self, generation: Generation) -> None:
        """A chunk of one prompt; then whole prompts while they fit into a chunk's time.

        A decoding step of few costs nearly what one of many does, so those who come together should join together.
        """
        until = time.perf_counter() + self._chunk_seconds
        self._prefill(generation)
        while (following := self._next()) and time.perf_counter() + self._seconds(following) <= until:
            self._prefill(following)

    def _seconds(self, generation: Generation) -> float:
        """How long its prefill will take."""
        return max(generation.remaining, SMALLEST_CHUNK) / (self._pace.tokens_per_second or GUESSED_PACE)

    def _urgency(self, generation: Generation) -> float:
        """Seconds of work left, less the seconds already waited: the shortest first, and nobody starves."""
        return self._seconds(generation) - (time.perf_counter() - generation.submitted)

    def _warm_step(self, job: WarmJob) -> None:
        share = WARM_SHARE if self._decoding else 1.0
        if result := job.step(self._chunk_seconds * share):
            self._warming.remove(job)
            self._emit(result)
            if job.later:
                self._background.add(job.left())

    def _prefill(self, generation: Generation) -> None:
        try:
            prefill = generation.prefill or self._started(generation)
            logits = prefill.step()
            self._progress(generation, prefill.done)
            if logits is not None:
                del self._waiting[generation.id]
                self._begin(generation, prefill, int(generation.chooser.choose(None, logits).item()))
        except Exception:
            # mlx raises RuntimeError, ValueError and others; this sequence's arrays are its own, so nobody else's
            # tokens are touched.
            log.exception("a prefill failed")
            self._waiting.pop(generation.id, None)
            self._tell([], [self._failure(generation)])

    def _started(self, generation: Generation) -> Prefill:
        """Looked up only now: a request before this one may have left what this one needs."""
        kv, cached = (None, 0) if generation.probe else self._found(generation.tokens)
        prefill = Prefill(
            self.loaded.model,
            generation.tokens,
            kv,
            cached,
            chunk_seconds=self._chunk_seconds,
            pace=self._pace,
            narrow=self.loaded.narrow,
        )
        generation.prefill, generation.cached = prefill, cached
        return prefill

    def _found(self, tokens: list[int]) -> tuple[list[Any] | None, int]:
        """The KV of the longest beginning that is resident, or on disk and longer; and its length."""
        hit = self.cache.lookup(tokens)
        kv, cached = (hit.kv, hit.length) if hit else (None, 0)
        if self._disk is not None:
            most = QUICKLY_READ if self._decoding else sys.maxsize
            if restored := self._disk.restore(tokens[:-1], cached, most):
                return restored.kv, restored.length
        return kv, cached

    def _begin(self, generation: Generation, prefill: Prefill, token: int) -> None:
        """The prompt is in the KV and the first token known."""
        generation.prefill = None
        held = Held(prefill.tokens, prefill.kv)
        if refusal := generation.refusal():
            self._tell([], [refusal])
            return
        if token in self._ends:
            self._keep(generation, held)
            self._finish([], generation, "stop")
            return
        deltas = list(generation.hear(token))
        if reason := generation.ending():
            self._keep(generation, held)
            self._finish(deltas, generation, reason)
            return
        start = Start(generation.id, held.tokens, held.kv, token, generation.left, generation.chooser)
        self._decoder.add(start)
        self._decoding[generation.id] = generation
        self._tell(deltas, [])

    def _decode(self) -> None:
        start = time.perf_counter()
        deltas: list[Delta] = []
        results: list[Frame] = []
        try:
            decoded = self._decoder.step()
            for item in decoded:
                self._take(item, deltas, results)
        except Exception:
            # All sequences' KV was advanced before it failed, so all of them are lost.
            log.exception("decoding failed")
            results += [self._failure(generation) for generation in self._decoding.values()]
            self._decoding.clear()
            self._decoder = self._new_decoder()
        else:
            if decoded:
                self._generation_tps = len(decoded) / max(time.perf_counter() - start, 1e-6)
        self._tell(deltas, results)

    def _take(self, item: Decoded, deltas: list[Delta], results: list[Frame]) -> None:
        generation = self._decoding[item.key]
        if refusal := generation.refusal():
            self._decoder.remove(item.key)
            results.append(refusal)
            del self._decoding[item.key]
            return
        if item.ended != "stop":
            deltas += generation.hear(item.token)
        if reason := generation.ending() or item.ended:
            self._keep(generation, item.held or self._decoder.remove(item.key))
            results.append(generation.finished(reason))
            del self._decoding[item.key]

    def _new_decoder(self) -> Decoder:
        return decoder_for(self.loaded.model, self._ends, batchable=self.loaded.batchable)

    # -- what is left ----------------------------------------------------------------------------------------

    def _keep(self, generation: Generation, held: Held | None) -> None:
        """A conversation goes on more often than not; then its next turn begins with these tokens."""
        if held is not None and held.tokens and not generation.probe:
            self.cache.put(held.tokens, held.kv, exact_only=not self.loaded.trimmable)

    def _finish(self, deltas: list[Delta], generation: Generation, reason: Reason) -> None:
        self._tell(deltas, [generation.finished(reason)])

    def _failure(self, generation: Generation) -> Frame:
        error = GenerationFailed("the engine failed in the middle of this request", remedy="send it again")
        return error.response(generation.id)

    def _progress(self, generation: Generation, done: int) -> None:
        total, cached = len(generation.tokens), generation.cached
        body = Progress(target=generation.id, stage="prefill", done=done, total=total, cached=cached)
        self._emit(Notification(body))

    def _tell(self, deltas: list[Delta], results: list[Frame]) -> None:
        if deltas:
            self._emit(Notification(Step(deltas=tuple(deltas))))
        for result in results:
            self._emit(result)
