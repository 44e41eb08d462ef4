"""The composition root: makes everything, connects it, and ends it in order.

What is nested inside ends first: the worker is stopped while HTTP still answers, so that running requests may
end; HTTP closes before the control socket, so that `stoker stop` sees the end; the lock goes last.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import psutil
import structlog
from aiohttp import web

from .. import __version__
from ..ipc.control_messages import (
    Clearance,
    Counted,
    PrefixListing,
    Rates,
    RewarmReport,
    StatusReport,
    StoredListing,
    Verification,
    WorkerStatus,
)
from ..ipc.control_messages import PrefixStatus as Prefix
from ..ipc.messages import Figures, Load, Progress, Statistics, WarmPrefix
from .control import ControlServer
from .dispatch import Dispatch, Limits
from .environment import OPENBLAS_REMEDY, find_openblas, worker_environment
from .gateway import Access, Keys, runner
from .history import Chronicle, History, read_history
from .life import Launch, Life, WorkerLife
from .lifecycle import Event, Policy
from .link import RequestRefused, WorkerLost
from .model_path import EMBEDDED
from .prefixes import KnownPrefixes, latest, reuse_note
from .process import LineSink
from .pulse import Budgets
from .readiness import NOTHING_YET, Board
from .rewarms import RewarmRefused
from .runtime_dir import RuntimeDirError, listen, private_directory, single_instance
from .settings import Settings
from .steward import Refusal
from .supervisor import Supervisor
from .suspects import cause_of
from .warmups import in_order

Reader: TypeAlias = Callable[[Board], Coroutine[Any, Any, None]]
"""Follows the board beside the daemon, and is cancelled with it."""

WORKER_COMMAND = (sys.executable, "-m", "stoker.worker")

EMBEDDED_ID = "SmolLM2-135M-Instruct"

log = structlog.get_logger("stoker.service")

STATISTICS_TIMEOUT = 0.25
"""Seconds that `status` waits for the worker's figures before it gives the last known ones; the worker answers
between two decoding steps or prefill chunks."""


@dataclass(frozen=True, slots=True)
class Models:
    """The names under which the model may be asked for."""

    id: str
    aliases: tuple[str, ...]
    accept_any: bool


class Service:
    """The daemon, once its settings are known. Everything that other rooms may ask it for is here.

    Args:
        settings: Checked settings.
        sink: Takes the workers' output.
        notes: Findings for `status`, each with its remedy.
        worker_command: What to spawn; tests give a fake worker.
    """

    def __init__(
        self,
        settings: Settings,
        sink: LineSink,
        notes: tuple[str, ...] = (),
        worker_command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self._settings = settings
        self._openblas = find_openblas()
        self._notes = (*notes, *_openblas_note(self._openblas))
        self._started = time.monotonic()
        self._figures: Figures | None = None
        self._figures_of = 0  # the generation
        self._port = settings.port
        self._launch = _launch(settings, sink, worker_command, self._openblas)
        self.host = settings.host
        self.access = Access(Keys(settings.api_keys), settings.open_endpoints, settings.allowed_origins)
        self.models = _models(settings)
        self.board = Board(NOTHING_YET)
        past = read_history(settings.state_dir)
        self._notes += (f"the daemon before this one had given up: {past.failed}",) if past.failed else ()
        self.supervisor = Supervisor(
            _policy(settings),
            self._make_life,
            self.board,
            attention=self._launch.attention,
            departures=past.departures,
            last_words=past.last_words,
        )
        self.dispatch = Dispatch(
            self.board,
            lambda: self.supervisor.serving,
            lambda: self.supervisor.last_words,
            _limits(settings),
            lambda generation: cause_of(generation, self.supervisor.departures),
        )
        self._prefixes = KnownPrefixes(
            self.board, lambda: self.supervisor.serving, learning=settings.learned_prefixes > 0
        )

    @property
    def url(self) -> str:
        """Base URL of the HTTP API; its port is known once `run` has bound it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self._port}"

    async def run(self, *beside: Reader) -> None:
        """Serve until stopped by a signal or over the control socket.

        Args:
            beside: Readers of the board, such as the log and the terminal.

        Raises:
            RuntimeDirError: If the runtime directory, a socket or the port can't be had.
        """
        runtime = private_directory(self._settings.runtime_dir)
        control = self._settings.control_socket
        with single_instance(control.with_name(f"{control.name}.lock")):
            listener = listen(control)
            try:
                async with anyio.create_task_group() as outer:
                    outer.start_soon(ControlServer(self).serve, listener, control)
                    outer.start_soon(self._obey_signals)
                    outer.start_soon(self._launch.attention.keep)
                    outer.start_soon(Chronicle(self._settings.state_dir, self._history).follow, self.board)
                    for reader in beside:
                        outer.start_soon(self._inform, reader)
                    async with self._http():
                        self.supervisor.start()
                        await self.supervisor.run()
                    outer.cancel_scope.cancel()
            finally:
                control.unlink(missing_ok=True)
                _remove_leftovers(runtime)

    async def _inform(self, reader: Reader) -> None:
        """A reader that fails is its own loss: to stop serving would be everybody's."""
        try:
            await reader(self.board)
        except Exception:
            log.exception("reader failed", reader=type(reader).__name__)

    @asynccontextmanager
    async def _http(self) -> AsyncIterator[None]:
        serving = runner(self)
        await serving.setup()
        try:
            site = web.TCPSite(serving, self.host, self._settings.port, backlog=1024)
            try:
                await site.start()
            except OSError as error:
                raise RuntimeDirError(_why_no_port(self.host, self._settings.port, error)) from error
            self._port = serving.addresses[0][1]
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await serving.cleanup()

    async def _obey_signals(self) -> None:
        """TERM, INT and HUP stop; said again, running requests are not waited for."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            async for _ in received:
                self.supervisor.stop()

    def _make_life(
        self, generation: int, post: Callable[[Event], None], on_progress: Callable[[Progress], None]
    ) -> Life:
        return WorkerLife(generation, self._launch, post, on_progress)

    def _history(self) -> History:
        now = self.board.current
        failed = now.reason if now.phase == "failed" else None
        return History(departures=self.supervisor.departures, last_words=self.supervisor.last_words, failed=failed)

    # -- what clients of the control socket ask for ----------------------------------------------------------

    async def restart(self, *, cold: bool) -> None:
        """Replace the worker: running requests end first, new ones wait for the successor."""
        self.supervisor.restart(cold=cold)

    async def stop(self) -> None:
        """End the daemon."""
        self.supervisor.stop()

    async def rewarm(self, prompts: tuple[WarmPrefix, ...]) -> RewarmReport:
        """Warm the live worker again; returns when that ended.

        Raises:
            Refusal: If no worker is ready for it.
        """
        try:
            ended = await self.supervisor.rewarm(prompts)
        except RewarmRefused as error:
            raise Refusal(str(error), "wait for ready: stoker ready --wait") from error
        return RewarmReport(
            outcome=ended.outcome.value,
            seconds=ended.seconds,
            reason=ended.reason,
            prefixes=tuple(Prefix.of(report) for report in ended.prefixes),
        )

    async def warm_list(self) -> PrefixListing:
        """Which prefixes are warm or learned."""
        return await self._prefixes.listing()

    async def warm_pin(self, name: str, *, pinned: bool) -> Counted:
        """Warm a learned prefix at every start, or no longer."""
        return await self._prefixes.pin(name, pinned=pinned)

    async def warm_forget(self, name: str | None) -> Counted:
        """Forget a learned prefix, or without a name all of every model."""
        return await self._prefixes.forget(name)

    async def cache_list(self) -> StoredListing:
        """What is on disk."""
        return await self._prefixes.stored()

    async def cache_verify(self, key: str | None) -> Verification:
        """Read what is on disk and compare."""
        return await self._prefixes.verify(key)

    async def cache_clear(self, name: str | None, *, foreign: bool) -> Clearance:
        """Delete what is on disk."""
        return await self._prefixes.clear(name, foreign=foreign)

    async def status(self) -> StatusReport:
        """Everything the daemon knows, within `STATISTICS_TIMEOUT`."""
        await self._refresh_figures()
        readiness = self.board.current
        life = self.supervisor.life
        figures = self._figures
        return StatusReport(
            **{name: getattr(readiness, name) for name in readiness.__struct_fields__},
            model=self.models.id,
            model_path=self._settings.model,
            http=self.url,
            pid=os.getpid(),
            uptime=round(time.monotonic() - self._started, 1),
            version=__version__,
            worker=_worker_status(life) if life else None,
            restarts=self.supervisor.departures,
            prefixes=latest(readiness.warmup.prefixes, figures),
            cache=figures.cache if figures else None,
            store=figures.store if figures else None,
            background=figures.background if figures else None,
            requests=self.dispatch.tally.snapshot(),
            rates=Rates(prompt_tps=figures.prompt_tps, generation_tps=figures.generation_tps) if figures else Rates(),
            last_words=self.supervisor.last_words,
            logs={name: str(self._settings.log_dir / f"{name}.log") for name in ("daemon", "worker")},
            notes=(*self._notes, *reuse_note(life.loaded if life else None)),
        )

    async def _refresh_figures(self) -> None:
        link = self.supervisor.serving
        if link is None:
            return
        if link.generation != self._figures_of:
            self._figures, self._figures_of = None, link.generation
        with anyio.move_on_after(STATISTICS_TIMEOUT):
            try:
                self._figures = await link.call(Statistics(), Figures)
            except (WorkerLost, RequestRefused):
                self._figures = None  # a status without figures is still a status


def _why_no_port(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        remedy = "another program uses the port; end it, or choose another with --port (0 takes any free one)"
    else:
        remedy = f"{error.strerror}; choose another address with --host, or another port with --port"
    return f"cannot listen on {host}:{port}: {remedy}"


def _models(settings: Settings) -> Models:
    model_id = EMBEDDED_ID if settings.model == EMBEDDED else Path(settings.model).name
    return Models(model_id, settings.aliases, settings.accept_any_model)


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_waiting=settings.max_waiting,
        wait_timeout=settings.wait_timeout_sec,
        attempts=settings.resume_attempts,
        resume_timeout=settings.resume_timeout_sec,
    )


def _policy(settings: Settings) -> Policy:
    return Policy(
        hello_timeout=settings.hello_timeout_sec,
        load_stall_timeout=settings.load_stall_timeout_sec,
        warmup_enabled=settings.kv_cache_warmup,
        warmup_timeout=settings.warmup_timeout_sec,
        drain_timeout=settings.drain_timeout_sec,
        stop_grace=settings.stop_grace_sec,
        backoff_base=settings.backoff_base_sec,
        backoff_cap=settings.backoff_cap_sec,
        restart_limit=settings.restart_limit,
        restart_period=settings.restart_period_sec,
    )


def _budgets(settings: Settings) -> Budgets:
    return Budgets(
        first_token=settings.first_token_timeout_sec,
        next_token=settings.next_token_timeout_sec,
        probe_interval=settings.probe_interval_sec,
        bad_answers=settings.bad_answers_limit,
    )


def _launch(settings: Settings, sink: LineSink, command: Sequence[str], openblas: Path | None) -> Launch:
    load = Load(
        model=settings.model,
        cache_dir=str(settings.cache_dir),
        context_tokens=settings.context_tokens,
        prefix_cache_bytes=settings.prefix_cache_bytes,
        memory_limit_bytes=settings.memory_limit_bytes,
        chunk_seconds=settings.chunk_seconds,
        max_batch=settings.max_batch,
        normalise=settings.normalise_prompts,
        learn=settings.learned_prefixes,
        state_dir=str(settings.state_dir),
        store_dir=str(settings.cache_dir / "prefixes"),
        store_bytes=settings.disk_cache_bytes,
    )
    return Launch(
        command=command,
        environ=lambda generation: worker_environment(os.environ, generation, openblas),
        socket_dir=settings.runtime_dir,
        load=load,
        prefixes=in_order(settings.warmup, settings.warmup_system_file),
        sink=sink,
        budgets=lambda: _budgets(settings),
    )


def _openblas_note(openblas: Path | None) -> tuple[str, ...]:
    if sys.platform != "linux" or openblas is not None:
        return ()
    return (f"no OpenBLAS found, so prefill on the CPU is about 9 times slower: {OPENBLAS_REMEDY}",)


def _worker_status(life: Life) -> WorkerStatus | None:
    if life.pid is None:
        return None
    try:
        memory = psutil.Process(life.pid).memory_info().rss
    except psutil.Error:
        return None  # it died between two lines
    return WorkerStatus(pid=life.pid, uptime=round(anyio.current_time() - life.started_at, 1), memory_bytes=memory)


def _remove_leftovers(runtime: Path) -> None:
    """Worker sockets of lives that were cut short; the lock file stays, and must."""
    for path in runtime.glob("worker-*.sock"):
        path.unlink(missing_ok=True)
