"""A worker's life without a process: it takes the time, and the course, that a test says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from stoker.daemon.lifecycle import (
    Drained,
    Event,
    Exited,
    Greeted,
    LinkLost,
    LoadAdvanced,
    Loaded,
    LoadFailed,
    Outcome,
    WarmupEnded,
)
from stoker.daemon.link import WorkerLink
from stoker.ipc.messages import Loaded as LoadedResult
from stoker.ipc.messages import PrefixReport, Progress, WarmPrefix

NEVER = 1e9
"""Seconds that no test waits."""

PREFIX = PrefixReport(name="system", tokens=10, tokens_warm=10, source="prefilled", seconds=4.0)


@dataclass(frozen=True)
class Course:
    """How a fake generation goes, in seconds: by default it is ready 7 s after its start."""

    hello: float = 1.0
    load: tuple[float, ...] = (1.0, 1.0)
    """Pauses of loading; after each there is progress."""
    load_failed: str | None = None
    fatal: bool = False
    warm: float = 4.0
    outcome: Outcome = Outcome.SUCCEEDED
    report: float = 0.5
    """After an abandoned warmup, until the report comes."""
    drain: float = 0.0
    term: float = 0.2
    """From TERM to the exit."""
    kill: float = 0.0
    dies: float = NEVER
    """From the start to an exit that nobody asked for."""
    cause: str = "crashed with SIGABRT: a fault in native code, or out of memory"
    words: tuple[str, ...] = ()


@dataclass
class FakeLife:
    """Plays a course; `calls` are the supervisor's instructions with the seconds since the start."""

    generation: int
    post: Callable[[Event], None]
    on_progress: Callable[[Progress], None]
    course: Course = field(default_factory=Course)
    link: WorkerLink | None = None
    loaded: LoadedResult | None = None
    pid: int | None = 1234
    started_at: float = field(default_factory=anyio.current_time)
    calls: list[tuple[float, str]] = field(default_factory=list)
    reaped: bool = False
    _end: anyio.Event = field(default_factory=anyio.Event)
    _cause: str = ""
    _abandoned: anyio.Event = field(default_factory=anyio.Event)

    @property
    def last_words(self) -> tuple[str, ...]:
        return self.course.words

    def die(self, cause: str) -> None:
        """End at once."""
        self._cause = self._cause or cause
        self._end.set()

    def lose_link(self) -> None:
        """The connection ends, the process lives."""
        self.post(LinkLost(self.generation, "the worker closed its connection"))

    async def run(self) -> None:
        self._note("run")
        cause = "was given up by the daemon"
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._greet)
                self._tasks.start_soon(self._die_after, self.course.dies, self.course.cause)
                await self._end.wait()
                self._tasks.cancel_scope.cancel()
            cause = self._cause
        finally:
            self.reaped = True
            self.post(Exited(self.generation, cause))

    async def load(self) -> None:
        self._note("load")
        total = len(self.course.load)
        for done, pause in enumerate(self.course.load, 1):
            if await self._over(pause):
                return
            self.post(LoadAdvanced(self.generation))
            self.on_progress(Progress(target=1, stage="load", done=done, total=total))
        if self.course.load_failed is not None:
            self.post(LoadFailed(self.generation, self.course.load_failed, fatal=self.course.fatal))
        else:
            self.post(Loaded(self.generation))

    async def warm(self, prefixes: tuple[WarmPrefix, ...], ticket: int, restore: bool = True) -> None:
        self._note(f"warm {[prefix.name for prefix in prefixes]} {ticket}")
        self._abandoned = anyio.Event()
        self.on_progress(Progress(target=2, stage="warm", done=0, total=10, name="system"))
        outcome, seconds = self.course.outcome, self.course.warm
        with anyio.move_on_after(seconds):
            await self._abandoned.wait()
            outcome, seconds = Outcome.ABANDONED, 0.0
            await anyio.sleep(self.course.report)
        if not self._end.is_set():
            reason = None if outcome is Outcome.SUCCEEDED else outcome.value
            self.post(WarmupEnded(self.generation, outcome, reason, seconds, (PREFIX,), ticket))

    async def abandon_warmup(self) -> None:
        self._note("abandon_warmup")
        self._abandoned.set()

    async def drain(self) -> None:
        self._note("drain")
        if not await self._over(self.course.drain):
            self.post(Drained(self.generation))

    def terminate(self) -> None:
        self._note("terminate")
        self._tasks.start_soon(self._die_after, self.course.term, "ended by SIGTERM, as asked")

    def kill(self) -> None:
        self._note("kill")
        self._tasks.start_soon(self._die_after, self.course.kill, "ended by SIGKILL, as asked")

    async def _greet(self) -> None:
        await anyio.sleep(self.course.hello)
        self.post(Greeted(self.generation))

    async def _die_after(self, seconds: float, cause: str) -> None:
        await anyio.sleep(seconds)
        self.die(cause)

    async def _over(self, seconds: float) -> bool:
        """Let time pass; say whether the life ended meanwhile."""
        with anyio.move_on_after(seconds):
            await self._end.wait()
        return self._end.is_set()

    def _note(self, call: str) -> None:
        self.calls.append((round(anyio.current_time() - self.started_at, 3), call))
