"""The engine's core: what each request of the daemon does."""

from __future__ import annotations

import logging
import time
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import psutil

from ...ipc.framing import Notification, Response
from ...ipc.messages import (
    CacheClear,
    CacheFigures,
    CacheList,
    CacheVerify,
    CountTokens,
    Figures,
    Forget,
    Generate,
    Id,
    Job,
    KnownPrefix,
    Load,
    Loaded,
    Measure,
    Noted,
    Pin,
    Prefixes,
    PrefixList,
    Progress,
    Speed,
    Stage,
    Statistics,
    Warm,
)
from ..engine import Emit
from ..errors import Busy, InvalidRequest, NotLoaded, Unsupported
from ..store_ahead import Ahead
from .disk import Disk
from .learner import Learner
from .loading import LoadedModel, load, name_of
from .scheduling import Scheduler
from .sources import Report
from .speed import measured

log = logging.getLogger(__name__)

CLEAR_SECONDS = 2.0
"""For the file of what was learned to be written empty; no longer than a chunk or two."""
REPORT_SECONDS = 0.1
"""Least time between two reports of a download, whose own callback comes with each network read."""


class MlxCore:
    """An engine `Core` on mlx. Make it on the thread that will use it.

    Args:
        emit: Where answers go.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._scheduler: Scheduler | None = None
        self._learner: Learner | None = None
        self._disk: Disk | None = None
        self._state_dir: Path | None = None

    @property
    def idle(self) -> bool:
        """See `Core`."""
        return self._scheduler is None or self._scheduler.idle

    @property
    def due(self) -> float | None:
        """See `Core`."""
        return None if self._scheduler is None else self._scheduler.due

    def turn(self) -> None:
        """See `Core`."""
        if self._scheduler is not None:
            self._scheduler.turn()
        if self._disk is not None:
            self._disk.touch()  # after it: a turn may itself take longer than what counts as calm

    def cancel(self, target: Id) -> None:
        """See `Core`."""
        if self._scheduler is not None:
            self._scheduler.cancel(target)

    def handle(self, request_id: Id, body: Job, submitted: float) -> None:
        """See `Core`."""
        match body:
            case Load():
                self._load(request_id, body, submitted)
            case Generate():
                self._loaded().generate(request_id, body, submitted)
            case CountTokens(prompt=prompt):
                self._emit(Response(request_id, self._loaded().count(prompt)))
            case Warm():
                self._loaded().warm(request_id, body)
            case Statistics() | Prefixes() | Measure():
                self._emit(Response(request_id, self._looked(body)))
            case Pin(name=name, pinned=pinned):
                self._emit(Response(request_id, Noted(count=self._learning().pin(name, pinned=pinned))))
            case Forget(name=name):
                self._emit(Response(request_id, Noted(count=self._forgotten(name))))
            case CacheList() | CacheVerify() | CacheClear():
                self._stored().aside(request_id, body, self._emit)

    def close(self, seconds: float) -> None:
        """See `Core`."""
        if self._learner is not None:
            self._learner.close(seconds / 2)
        if self._disk is not None:
            self._disk.close(seconds / 2)

    def _looked(self, body: Statistics | Prefixes | Measure) -> Figures | PrefixList | Speed:
        match body:
            case Statistics():
                return self._figures()
            case Prefixes():
                return self._prefixes()
        return self._speed()

    def _learning(self) -> Learner:
        self._loaded()
        if self._learner is None:
            raise Unsupported("nothing is learned here", remedy="set learned_prefixes to 1 or more, and restart")
        return self._learner

    def _forgotten(self, name: str | None) -> int:
        """All can be forgotten even where nothing is learned any more: what was learned before is still there."""
        if name is not None or self._learner is not None or self._state_dir is None:
            return self._learning().forget(name)
        past = Learner(self._state_dir, self._loaded().loaded, 0)
        count = past.forget(None)
        past.close(CLEAR_SECONDS)
        return count

    def _stored(self) -> Disk:
        self._loaded()
        if self._disk is None:
            raise Unsupported("no prefixes are kept on disk", remedy="set disk_cache_bytes over 0, and restart")
        return self._disk

    def _speed(self) -> Speed:
        if not self.idle:  # what computes beside it would be delayed, and would falsify it
            raise Busy("the engine has something to compute, and measures beside nothing", remedy="try again later")
        return measured()

    def _prefixes(self) -> PrefixList:
        cache = self._loaded().cache
        resident = {entry.name: entry.tokens for entry in cache.entries() if entry.name is not None}
        learned = self._learner.known(lambda name: resident.get(name, 0)) if self._learner else ()
        names = {prefix.name for prefix in learned}
        configured = tuple(
            KnownPrefix(name=name, origin="configured", tokens=size, tokens_warm=size)
            for name, size in resident.items()
            if name not in names
        )
        return PrefixList(prefixes=configured + learned, notes=self._learner.notes if self._learner else ())

    def _loaded(self) -> Scheduler:
        if self._scheduler is None:
            raise NotLoaded("no model is loaded", remedy="send `load` first, and wait for its result")
        return self._scheduler

    def _load(self, request_id: Id, body: Load, submitted: float) -> None:
        if self._scheduler is not None:
            raise InvalidRequest("a model is loaded already; another one needs another worker", field="model")
        ahead = _ahead(body)
        loaded = load(body, self._reporter(request_id))
        self._state_dir = Path(body.state_dir) if body.state_dir is not None else None
        if body.learn and self._state_dir is not None:
            self._learner = Learner(self._state_dir, loaded, body.learn)
        self._disk = _disk(body, loaded, ahead)
        self._scheduler = Scheduler(loaded, body, self._emit, self._learner, self._disk)
        seconds = time.perf_counter() - submitted
        log.info("loaded %s in %.2f s", loaded.name, seconds)
        self._emit(Response(request_id, _described(loaded, seconds)))

    def _reporter(self, request_id: Id) -> Report:
        latest = 0.0

        def report(stage: Stage, done: int, total: int) -> None:
            nonlocal latest
            now = time.monotonic()
            if stage != "download" or now - latest >= REPORT_SECONDS:
                latest = now
                self._emit(Notification(Progress(target=request_id, stage=stage, done=done, total=total)))

        return report

    def _figures(self) -> Figures:
        if self._scheduler is not None:
            return self._scheduler.figures(memory_in_use())
        nothing = CacheFigures(entries=0, pinned=0, bytes=0, limit_bytes=0, hits=0, misses=0, evictions=0)
        return Figures(memory_bytes=memory_in_use(), cache=nothing, running=0)


def _described(loaded: LoadedModel, seconds: float) -> Loaded:
    return Loaded(
        model=loaded.name,
        context_tokens=loaded.context,
        vocabulary=loaded.vocabulary,
        kv_bytes_per_token=loaded.cost.per_token,
        memory_bytes=memory_in_use(),
        seconds=round(seconds, 6),
        prefix_reuse="trimmable" if loaded.trimmable else "exact",
        engine={"mlx": version("mlx"), "mlx_lm": version("mlx-lm"), "device": mx.default_device().type.name},
    )


def memory_in_use() -> int:
    """Bytes of this process: what the system counts, or what mlx does, for a GPU's memory need not be resident."""
    return max(int(psutil.Process().memory_info().rss), int(mx.get_active_memory()))


def _ahead(body: Load) -> Ahead | None:
    if body.store_dir is None or not body.store_bytes:
        return None
    return Ahead(Path(body.store_dir), name_of(body.model), body.prefix_cache_bytes)


def _disk(body: Load, loaded: LoadedModel, ahead: Ahead | None) -> Disk | None:
    """Without a disk the worker serves all the same."""
    if body.store_dir is None or not body.store_bytes:
        return None
    try:
        return Disk(Path(body.store_dir), loaded, body.store_bytes, ahead=ahead)
    except OSError as error:
        log.warning("prefixes are not kept on disk: the model's files can't be read: %s", error)
        return None
