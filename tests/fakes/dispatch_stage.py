"""A dispatch with a board, a place for the serving link, and clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup

from stoker.daemon.dispatch import (
    Dispatch,
    Limits,
    Output,
    RequestFailed,
    Unavailable,
    Waiting,
)
from stoker.daemon.lifecycle import Phase, State
from stoker.daemon.link import WorkerLink
from stoker.daemon.readiness import NOTHING_YET, Board, describe
from stoker.ipc.control_messages import RequestCounts
from stoker.ipc.messages import Delta, Generate
from tests.fakes.fake_peer import GENERATE

WORDS = ("terminate called after throwing", "[METAL] Command buffer execution failed")


@dataclass
class Client:
    """What one client got."""

    outputs: list[Output] = field(default_factory=list)
    waits: list[Waiting] = field(default_factory=list)
    error: Unavailable | RequestFailed | None = None
    at: float = 0.0
    leave: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def tokens(self) -> list[int]:
        return [token for output in self.outputs if isinstance(output, Delta) for token in output.tokens]

    @property
    def failure(self) -> RequestFailed:
        assert isinstance(self.error, RequestFailed)
        return self.error

    @property
    def unavailable(self) -> Unavailable:
        assert isinstance(self.error, Unavailable)
        return self.error


@dataclass
class Stage:
    """A board, a place for the serving link, and clients."""

    tasks: TaskGroup
    limits: Limits
    board: Board = field(default_factory=lambda: Board(NOTHING_YET))
    link: WorkerLink | None = None
    began: float = field(default_factory=anyio.current_time)
    causes: dict[int, str] | None = None
    """Of the generations that ended; None: lost connections are all that is known."""

    def __post_init__(self) -> None:
        cause = None if self.causes is None else self.causes.get
        self.dispatch = Dispatch(self.board, lambda: self.link, lambda: WORDS, self.limits, cause)

    @property
    def counts(self) -> RequestCounts:
        return self.dispatch.tally.snapshot()

    def publish(self, phase: Phase, reason: str | None = None, retry_at: float | None = None) -> None:
        generation = self.link.generation if self.link else 0
        state = State(phase=phase, wanted=phase is not Phase.DOWN, generation=generation, reason=reason)
        self.board.publish(describe(state, 0.0, None), retry_at)

    async def serve(self, link: WorkerLink) -> None:
        """A worker is ready."""
        self.link = link
        self.publish(Phase.READY)
        await anyio.wait_all_tasks_blocked()

    async def lose(self, cause: str | None = None) -> None:
        """No worker is ready; the last one died of `cause`."""
        if cause is not None and self.causes is not None and self.link is not None:
            self.causes[self.link.generation] = cause
        self.link = None
        self.publish(Phase.STARTING)
        await anyio.wait_all_tasks_blocked()

    async def client(self, body: Generate = GENERATE) -> Client:
        """A client that asks, and reads until the end."""
        client = Client()
        self.tasks.start_soon(self._read, client, body)
        await anyio.wait_all_tasks_blocked()
        return client

    async def _read(self, client: Client, body: Generate) -> None:
        with client.leave:
            try:
                async with self.dispatch.generate(body) as events:
                    async for event in events:
                        if isinstance(event, Waiting):
                            client.waits.append(event)
                        else:
                            client.outputs.append(event)
            except (Unavailable, RequestFailed) as error:
                client.error = error
        client.at = anyio.current_time() - self.began


@asynccontextmanager
async def stage(limits: Limits | None = None, *, causes: bool = False) -> AsyncIterator[Stage]:
    """A stage; with `causes` it tells why workers ended."""
    async with anyio.create_task_group() as tasks:
        yield Stage(tasks, limits or Limits(), causes={} if causes else None)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


async def settled() -> None:
    await anyio.wait_all_tasks_blocked()
