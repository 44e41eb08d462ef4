"""The composition root: makes everything, connects it, and ends it in order.

What is nested inside ends first: the worker is stopped while HTTP still answers, so that running requests may
end; HTTP closes before the control socket, so that `stoker stop` sees the end; the lock goes last.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import anyio
import structlog
from aiohttp import web

from .. import __version__
from ..ipc.control_messages import (
    Clearance,
    Counted,
    Departure,
    Measurement,
    PrefixListing,
    RewarmReport,
    StatusReport,
    StoredListing,
    Verification,
)
from ..ipc.control_messages import PrefixStatus as Prefix
from ..ipc.messages import Progress, WarmPrefix
from . import derived
from .attention import Attention
from .control import ControlServer
from .derived import Models
from .dispatch import Dispatch
from .environment import find_openblas, openblas_note
from .figures import WorkerFigures, told, worker_status
from .gateway import Access, Keys, runner
from .history import DEPARTURES_KEPT, Chronicle, History, read_history
from .insight import Insight
from .life import Launch, Life, WorkerLife
from .lifecycle import Event
from .measuring import Gauge
from .memory import footprint, watch_memory
from .prefixes import KnownPrefixes, latest, reuse_note
from .process import LineSink
from .readiness import NOTHING_YET, Board
from .reload import Change, Reloader, Reread
from .rewarms import RewarmRefused
from .runtime_dir import (
    RuntimeDirError,
    listen,
    private_directory,
    remove_worker_sockets,
    single_instance,
    why_no_port,
)
from .settings import Settings
from .steward import Refusal
from .supervisor import Supervisor
from .suspects import cause_of

Reader: TypeAlias = Callable[[Board], Coroutine[Any, Any, None]]
"""Follows the board beside the daemon, and is cancelled with it."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

WORKER_COMMAND = (sys.executable, "-P", "-m", "stoker.worker")

log = structlog.get_logger("stoker.service")


class Service:
    """The daemon, once its settings are known. Everything that other rooms may ask it for is here.

    Args:
        settings: Checked settings.
        sink: Takes the workers' output.
        warnings: Of the configuration, each with its remedy; `status` has them until another one is in force.
        worker_command: What to spawn; tests give a fake worker.
        reread: Reads the configuration again, for SIGHUP; raises `ConfigurationError`.
    """

    def __init__(
        self,
        settings: Settings,
        sink: LineSink,
        warnings: tuple[str, ...] = (),
        worker_command: Sequence[str] = WORKER_COMMAND,
        reread: Reread | None = None,
    ) -> None:
        self._settings = settings
        self._sink = sink
        self._worker_command = worker_command
        self.reloader = Reloader(reread, lambda: self._settings, self._apply, warnings)
        self._openblas = find_openblas()
        self._past = read_history(settings.state_dir)
        self._notes = (*openblas_note(self._openblas), *self._past.notes)
        self._started = time.monotonic()
        self._port = settings.port
        self._attention = Attention()
        self._launch = self._launch_of(settings)
        self.host = settings.host
        self.access = Access(Keys(settings.api_keys), settings.open_endpoints, settings.allowed_origins)
        self.board = Board(NOTHING_YET)
        self.supervisor = Supervisor(
            derived.policy(settings),
            partial(_live, self._launch),
            self.board,
            attention=self._attention,
            room=lambda life: derived.is_room(self._settings, life.pid and footprint(life.pid)),
        )
        self.dispatch = Dispatch(
            self.board,
            lambda: self.supervisor.serving,
            lambda: self.supervisor.last_words,
            derived.limits(settings),
            lambda generation: cause_of(generation, self.supervisor.departures),
        )
        self.insight = Insight.over(self.board, self.dispatch.records, lambda: self.supervisor.departures)
        self._figures = WorkerFigures(lambda: self.supervisor.serving)
        self._gauge = Gauge(self.board, lambda: self.supervisor.serving)
        self._prefixes = self._known_prefixes()

    @property
    def models(self) -> Models:
        """The names under which the model that is served may be asked for."""
        return derived.models(self._settings, self._model)

    @property
    def _model(self) -> str:
        """The model of the living worker; it may be another than configured, where the new one did not come up."""
        life = self.supervisor.life
        return life.launch.load.model if isinstance(life, WorkerLife) else self._launch.load.model

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
        with (
            single_instance(control.with_name(f"{control.name}.lock")),
            self.insight.journal.listening(),
            anyio.open_signal_receiver(*SIGNALS) as received,  # to the very end: one more TERM must leave no socket
        ):
            listener = listen(control)
            try:
                async with anyio.create_task_group() as outer:
                    outer.start_soon(ControlServer(self).serve, listener, control)
                    outer.start_soon(self._obey, received)
                    outer.start_soon(self.reloader.keep)
                    outer.start_soon(self._attention.keep)
                    outer.start_soon(
                        watch_memory, self._serving, lambda: derived.ceiling(self._settings), self._recycle
                    )
                    outer.start_soon(Chronicle(self._settings.state_dir, self._history).follow, self.board)
                    for reader in beside:
                        outer.start_soon(self._inform, reader)
                    async with self._http():
                        self.supervisor.start()
                        await self.supervisor.run()
                    outer.cancel_scope.cancel()
            finally:
                control.unlink(missing_ok=True)
                remove_worker_sockets(runtime)

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
                raise RuntimeDirError(why_no_port(self.host, self._settings.port, error)) from error
            self._port = serving.addresses[0][1]
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await serving.cleanup()

    async def _obey(self, received: AsyncIterator[signal.Signals]) -> None:
        """TERM and INT stop; said again, running requests are not waited for. HUP reads the configuration again."""
        async for number in received:
            if number == signal.SIGHUP:
                self.reloader.ask()
            else:
                self.supervisor.stop()

    def _launch_of(self, settings: Settings) -> Launch:
        return derived.launch(
            settings,
            command=settings.worker_command or self._worker_command,
            sink=self._sink,
            openblas=self._openblas,
            attention=self._attention,
            in_force=lambda: derived.budgets(self._settings),
        )

    def _known_prefixes(self) -> KnownPrefixes:
        learning = self._settings.learned_prefixes > 0
        return KnownPrefixes(self.board, lambda: self.supervisor.serving, learning=learning)

    def _serving(self) -> tuple[int, int] | None:
        """Generation and process of the worker that serves."""
        link, life = self.supervisor.serving, self.supervisor.life
        return None if link is None or life is None or life.pid is None else (link.generation, life.pid)

    def _recycle(self, why: str) -> None:
        self.supervisor.restart(why=why)

    def _apply(self, settings: Settings, change: Change) -> None:
        self._settings = settings
        self.supervisor.policy = derived.policy(settings)
        self.dispatch.bound(derived.limits(settings))
        self._prefixes = self._known_prefixes()
        logging.getLogger("stoker").setLevel(settings.log_level.upper())
        if change.worker:
            self._launch = self._launch_of(settings)
        if change.worker or self.board.current.replacement_failed:
            why = f"new configuration ({', '.join(change.worker)})" if change.worker else None
            self.supervisor.restart(why=why, make_life=partial(_live, self._launch))

    def _history(self) -> History:
        now = self.board.current
        failed = now.reason if now.phase == "failed" else None
        return History(departures=self._departures, last_words=self._last_words, failed=failed)

    @property
    def _departures(self) -> tuple[Departure, ...]:
        return (*self._past.departures, *self.supervisor.departures)[-DEPARTURES_KEPT:]

    @property
    def _last_words(self) -> tuple[str, ...]:
        return self.supervisor.last_words or self._past.last_words

    # -- what clients of the control socket ask for ----------------------------------------------------------

    async def restart(self, *, cold: bool) -> None:
        """Replace the worker by one of the present configuration: beside it where memory allows, else in place."""
        life = self.supervisor.life
        same = isinstance(life, WorkerLife) and life.launch is self._launch
        self.supervisor.restart(cold=cold, make_life=None if same else partial(_live, self._launch))

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

    async def measure(self) -> Measurement:
        """How fast the machine computes for the worker that serves."""
        return await self._gauge.measure()

    async def status(self) -> StatusReport:
        """Everything the daemon knows, without waiting for a busy worker for long."""
        figures = await self._figures.latest()
        readiness = self.board.current
        life = self.supervisor.life
        loaded = life.loaded if life else None
        return StatusReport(
            **{name: getattr(readiness, name) for name in readiness.__struct_fields__},
            model=self.models.id,
            model_path=self._model,
            http=self.url,
            pid=os.getpid(),
            uptime=round(time.monotonic() - self._started, 1),
            version=__version__,
            worker=worker_status(life) if life else None,
            restarts=self._departures,
            prefixes=latest(readiness.warmup.prefixes, figures),
            **told(figures),
            requests=self.dispatch.tally.snapshot(),
            last_words=self._last_words,
            logs={name: str(self._settings.log_dir / f"{name}.log") for name in ("daemon", "worker")},
            notes=(*self.reloader.warnings, *self._notes, *reuse_note(loaded)),
            reload=self.reloader.status,
        )


def _live(
    launch: Launch, generation: int, post: Callable[[Event], None], on_progress: Callable[[Progress], None]
) -> Life:
    return WorkerLife(generation, launch, post, on_progress)
