"""One generation's life: from spawn over hello to the reaped exit. Carries out, decides nothing.

Whatever happens is posted to the supervisor as an event; a life posts exactly one `Exited`, as its last word.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import Protocol

import anyio
from anyio.abc import SocketAttribute

from ..ipc.channel import Channel
from ..ipc.errors import FATAL
from ..ipc.messages import Id, Load, Loaded, Progress, Warm, Warmed, WarmedLater, WarmPrefix
from ..ipc.peer import peer
from ..ipc.unix_stream import accept_unix
from .attention import Attention
from .causes import is_transient
from .lifecycle import (
    Drained,
    Event,
    Exited,
    Greeted,
    LinkLost,
    LoadAdvanced,
    LoadFailed,
    Outcome,
    Unfit,
    WarmupEnded,
)
from .lifecycle import Loaded as LoadedEvent
from .lifecycle import WarmedLater as WarmedLaterEvent
from .link import FROM_WORKER, ProtocolBroken, RequestRefused, VersionMismatch, WorkerLink, WorkerLost
from .process import LineSink, WorkerProcess
from .pulse import Budgets
from .runtime_dir import RuntimeDirError, listen
from .vigil import watch_over

EXIT_GRACE = 0.2
"""Seconds that a process has to exit after its connection ended, before that counts as the fault."""

ACCEPT_PAUSE = 0.1
"""Seconds before the worker's connection is accepted again, where descriptors had run out."""

LINK_GRACE = 1.0
"""Seconds after the exit in which what the worker had sent before is still read."""


class Life(Protocol):
    """What the supervisor needs of a generation's life."""

    started_at: float
    """Monotonic seconds."""
    link: WorkerLink | None
    """From hello on."""
    loaded: Loaded | None
    pid: int | None

    @property
    def last_words(self) -> tuple[str, ...]:
        """The last lines of its output."""

    async def run(self) -> None:
        """Live; the last thing it does is to post `Exited`."""

    async def load(self) -> None:
        """Have the model loaded; posts `Loaded` or `LoadFailed`."""

    async def warm(self, prefixes: tuple[WarmPrefix, ...], ticket: int, restore: bool = True) -> None:
        """Have prefixes warmed, the configured ones if none are given; posts `WarmupEnded`."""

    async def abandon_warmup(self) -> None:
        """Cancel the running warmup."""

    async def drain(self) -> None:
        """Post `Drained` when no request runs any more."""

    def terminate(self) -> None:
        """Ask the process group to end."""

    def kill(self) -> None:
        """End the process group."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What it takes to start workers of one model.

    Attributes:
        command: Program and arguments; `--socket PATH` is added.
        environ: The environment for a generation.
        socket_dir: Private directory for worker sockets.
        load: The load request.
        prefixes: What is warmed at each start.
        sink: Takes the workers' output, line by line.
        budgets: How long a loaded worker may be silent, as of now.
        attention: Whether the daemon was there to see.
    """

    command: Sequence[str]
    environ: Callable[[int], Mapping[str, str]]
    socket_dir: Path
    load: Load
    prefixes: tuple[WarmPrefix, ...]
    sink: LineSink
    budgets: Callable[[], Budgets] = Budgets
    attention: Attention = field(default_factory=Attention)


@dataclass
class WorkerLife:
    """A generation backed by a real process."""

    generation: int
    launch: Launch
    post: Callable[[Event], None]
    on_progress: Callable[[Progress], None]
    link: WorkerLink | None = None
    loaded: Loaded | None = None
    pid: int | None = None
    started_at: float = field(default_factory=anyio.current_time)
    _process: WorkerProcess | None = None
    _warming: set[Id] = field(default_factory=set)
    _ending: Callable[[WorkerProcess], None] | None = None
    _answered_load: anyio.Event = field(default_factory=anyio.Event)
    _vigil: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def last_words(self) -> tuple[str, ...]:
        """The last lines of its output."""
        return self._process.last_words if self._process else ()

    async def run(self) -> None:
        """Live. Cancelled, it kills the process group at once, and still reaps it."""
        cause = "was given up by the daemon"
        transient = False
        try:
            cause = await self._live()
        except (OSError, RuntimeDirError) as error:
            cause = f"could not be started: {error}"
            transient = is_transient(error)
        finally:
            if self.link is not None:
                self.link.lose(f"the worker {cause}")
            luck = random.random()  # noqa: S311 - it spreads restarts, and guards nothing
            fatal = self._process is not None and self._process.refused
            self.post(Exited(self.generation, cause, luck, fatal, transient))

    async def _live(self) -> str:
        path = self.launch.socket_dir / f"worker-{self.generation}.sock"
        with listen(path) as listener:
            try:
                command = [*self.launch.command, "--socket", str(path)]
                environ = self.launch.environ(self.generation)
                process = await WorkerProcess.spawn(command, environ, self.launch.sink)
                self._process, self.pid = process, process.pid
                if self._ending is not None:
                    self._ending(process)
                return await self._attend(process, listener)
            finally:
                path.unlink(missing_ok=True)

    async def _attend(self, process: WorkerProcess, listener: socket) -> str:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._converse, listener, process.exited)
            tasks.start_soon(self._watch)
            try:
                cause = await process.wait()
            except BaseException:
                process.kill()
                with anyio.CancelScope(shield=True):  # an unreaped process is an orphan
                    await process.wait()
                raise
            self._vigil.cancel()
            # The reader ends by itself at the end of the stream, unless a grandchild holds the socket.
            tasks.cancel_scope.deadline = anyio.current_time() + (LINK_GRACE if self.link else 0)
        return cause

    async def _converse(self, listener: socket, exited: anyio.Event) -> None:
        try:
            async with await self._accept(listener) as channel:
                link = WorkerLink(channel, self.generation, self._warmed_later)
                await link.greet()
                self.link = link
                self.post(Greeted(self.generation))
                end = await link.run()
        except WorkerLost as lost:
            end = lost
        except OSError as error:
            end = WorkerLost(f"the worker's connection could not be accepted: {error}")
        if not isinstance(end, ProtocolBroken):
            # Mostly the connection ended because the process did, and then its exit is the better story.
            with anyio.move_on_after(EXIT_GRACE):
                await exited.wait()
                return
        self.post(LinkLost(self.generation, str(end), fatal=isinstance(end, VersionMismatch)))

    async def _watch(self) -> None:
        """Watch over the loaded worker while its process lives."""
        with self._vigil:
            await self._answered_load.wait()
            if self.link is not None:
                why = await watch_over(self.link, self.launch.budgets, self.launch.attention)
                self.post(Unfit(self.generation, why))

    async def _accept(self, listener: socket) -> Channel:
        while True:
            try:
                stream = await accept_unix(listener)
            except OSError as error:
                if not is_transient(error):
                    raise
                await anyio.sleep(ACCEPT_PAUSE)  # no longer than a hello may take
                continue
            # The directory is private already; this is the second lock on the door.
            if peer(stream.extra(SocketAttribute.raw_socket)).uid == os.geteuid():  # noqa: S610 - not Django
                return Channel(stream, FROM_WORKER)
            await stream.aclose()

    async def load(self) -> None:
        """Have the model loaded, and post how it went."""
        if self.link is None:
            return
        try:
            self.loaded = await self.link.call(self.launch.load, Loaded, self._load_advanced)
        except RequestRefused as error:
            why = f"{error} {error.data.remedy or ''}".strip()
            self.post(LoadFailed(self.generation, why, fatal=error.code in FATAL))
        except WorkerLost:
            return  # `run` posts the loss
        else:
            self._answered_load.set()
            self.post(LoadedEvent(self.generation))

    def _load_advanced(self, progress: Progress) -> None:
        self.post(LoadAdvanced(self.generation))
        self.on_progress(progress)

    async def warm(self, prefixes: tuple[WarmPrefix, ...], ticket: int, restore: bool = True) -> None:
        """Have prefixes warmed, the configured ones if none are given, and post how it went."""
        if self.link is None:
            return
        try:
            wanted = prefixes or self.launch.prefixes
            body = Warm(prefixes=wanted, learned=not prefixes, restore=restore, finish=not ticket)
            warmed = await self._warmed(self.link, body)
        except RequestRefused as error:
            self.post(WarmupEnded(self.generation, Outcome.FAILED, str(error), ticket=ticket))
        except WorkerLost:
            return  # `run` posts the loss
        else:
            outcome = Outcome(warmed.outcome)
            self.post(WarmupEnded(self.generation, outcome, warmed.reason, warmed.seconds, warmed.prefixes, ticket))

    async def _warmed(self, link: WorkerLink, body: Warm) -> Warmed:
        async with link.ask(body) as (request_id, mailbox):
            self._warming.add(request_id)
            try:
                while not isinstance(mail := await mailbox.get(), Warmed):
                    if isinstance(mail, Progress):
                        self.on_progress(mail)
                return mail
            finally:
                self._warming.discard(request_id)

    def _warmed_later(self, warmed: WarmedLater) -> None:
        self.post(WarmedLaterEvent(self.generation, warmed.prefixes))

    async def abandon_warmup(self) -> None:
        """Tell the worker to give the running warmup up; its report still comes."""
        if self.link is not None:
            # More than one: an abandoned rewarm may not have been answered yet when the next one begins.
            for request_id in tuple(self._warming):
                await self.link.cancel(request_id)

    async def drain(self) -> None:
        """Post when no request runs any more."""
        if self.link is not None:
            await self.link.idle()
        self.post(Drained(self.generation))

    def terminate(self) -> None:
        """Ask the process group to end."""
        self._end(WorkerProcess.terminate)

    def kill(self) -> None:
        """End the process group."""
        self._end(WorkerProcess.kill)

    def _end(self, how: Callable[[WorkerProcess], None]) -> None:
        if self._process is None:
            self._ending = how  # being spawned right now; its first moment will be its last
        else:
            how(self._process)
