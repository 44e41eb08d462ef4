"""A generation's life with a real process, the fake worker, and a diary of what it posts."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import anyio
import psutil
from anyio.abc import TaskGroup

from stoker.daemon.life import Launch, WorkerLife
from stoker.daemon.lifecycle import (
    Event,
    Exited,
    Greeted,
    WarmupEnded,
)
from stoker.daemon.link import WorkerLink
from stoker.ipc.messages import Progress, WarmPrefix
from tests.fakes.fake_daemon import LOAD
from tests.fakes.fake_scenario import COMMAND

DEADLINE = 30.0
"""Seconds after which a wait in these tests has failed; none takes a tenth of it."""

SYSTEM = WarmPrefix(name="system", system="you are a kind and patient machine")
AGENT = WarmPrefix(name="agent", system="you are an agent of " + "many words " * 200)

E = TypeVar("E", bound=Event)


@dataclass
class Alive:
    """A life that is being lived, and its diary."""

    tasks: TaskGroup
    events: list[Event] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    news: anyio.Event = field(default_factory=anyio.Event)
    life: WorkerLife = field(init=False)

    def post(self, event: Event) -> None:
        self.events.append(event)
        self._tell()

    def on_progress(self, progress: Progress) -> None:
        self.progress.append(progress)
        self._tell()

    def sink(self, line: str) -> None:
        self.lines.append(line)
        self._tell()

    def _tell(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    @property
    def link(self) -> WorkerLink:
        assert self.life.link is not None
        return self.life.link

    def grandchild(self) -> int:
        return int(next(line for line in self.lines if line.startswith("grandchild ")).split()[1])

    async def when(self, condition: Callable[[], Any]) -> None:
        with anyio.fail_after(DEADLINE):
            while not condition():
                await self.news.wait()

    async def until(self, kind: type[E]) -> E:
        """The first event of a kind; takes it out of the diary."""
        await self.when(lambda: any(isinstance(event, kind) for event in self.events))
        event = next(event for event in self.events if isinstance(event, kind))
        self.events.remove(event)
        return event

    async def warm(self, *prefixes: WarmPrefix, ticket: int = 0) -> WarmupEnded:
        """Greet, and warm."""
        await self.until(Greeted)
        self.tasks.start_soon(self.life.warm, prefixes, ticket)
        return await self.until(WarmupEnded)

    async def end(self) -> str:
        """Kill it; the cause of its end."""
        self.life.kill()
        return (await self.until(Exited)).cause


@asynccontextmanager
async def living(folder: Path, scenario: object = "", **changes: Any) -> AsyncIterator[Alive]:
    """Begin a life under a scenario, with changes to its launch; its process is gone at the end of the block."""
    environ = {**os.environ, "FAKE_WORKER": scenario if isinstance(scenario, str) else json.dumps(scenario)}
    async with anyio.create_task_group() as tasks:
        alive = Alive(tasks)
        launch = Launch(
            command=COMMAND,
            environ=lambda generation: {**environ, "STOKER_GENERATION": str(generation)},
            socket_dir=folder,
            load=LOAD,
            prefixes=(SYSTEM,),
            sink=alive.sink,
        )
        alive.life = WorkerLife(5, replace(launch, **changes), alive.post, alive.on_progress)
        tasks.start_soon(alive.life.run)
        yield alive
        tasks.cancel_scope.cancel()
    assert alive.life.pid is None or not psutil.pid_exists(alive.life.pid)


Live: TypeAlias = Callable[..., AbstractAsyncContextManager[Alive]]
"""`living`, with a directory for the socket already given."""


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def fault(at: str, do: str, **more: object) -> dict[str, object]:
    return {"faults": [{"at": at, "do": do, **more}]}
