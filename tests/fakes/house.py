"""A supervisor and a dispatch over fake workers that are real processes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import anyio
import psutil

from stoker.daemon.dispatch import Dispatch, Limits
from stoker.daemon.life import Launch, WorkerLife
from stoker.daemon.lifecycle import Policy
from stoker.daemon.pulse import Budgets
from stoker.daemon.readiness import NOTHING_YET, Board
from stoker.daemon.supervisor import Supervisor
from stoker.daemon.suspects import cause_of
from stoker.ipc.control_messages import Readiness
from stoker.ipc.messages import Delta, WarmPrefix
from tests.fakes.fake_daemon import GENERATE, LOAD
from tests.fakes.fake_scenario import COMMAND

DEADLINE = 40.0
"""Seconds after which a wait in these tests has failed; none takes a tenth of it."""

EAGER = Policy(healthy_after=0.0, backoff_base=0.01, backoff_cap=0.02, stop_grace=0.2)
"""Restarts at once, so that tests wait for processes only."""

WATCHFUL = Budgets(first_token=30.0, next_token=30.0)
"""Budgets that no test reaches by accident."""


@dataclass
class House:
    """A daemon's supervisor and dispatch over real processes."""

    launch: Launch
    policy: Policy
    room: bool = False
    """For two workers."""
    board: Board = field(default_factory=lambda: Board(NOTHING_YET))

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(
            self.policy,
            lambda *arguments: WorkerLife(arguments[0], self.launch, *arguments[1:]),
            self.board,
            attention=self.launch.attention,
            room=lambda _: self.room,
        )
        self.dispatch = Dispatch(
            self.board,
            lambda: self.supervisor.serving,
            lambda: self.supervisor.last_words,
            Limits(),
            lambda generation: cause_of(generation, self.supervisor.departures),
        )

    async def until(self, condition: Callable[[Readiness], bool]) -> Readiness:
        readiness = await self.board.wait(condition, DEADLINE)
        assert condition(readiness), readiness
        return readiness

    async def ready(self, generation: int = 1) -> Readiness:
        return await self.until(lambda r: r.ready and r.generation >= generation)

    async def asked(self) -> tuple[int, ...]:
        """What a client gets."""
        tokens: tuple[int, ...] = ()
        async with self.dispatch.generate(GENERATE) as events:
            async for event in events:
                tokens += event.tokens if isinstance(event, Delta) else ()
        return tokens

    def kill(self) -> None:
        """The system kills the worker."""
        life = self.supervisor.life
        assert life is not None
        assert life.pid is not None
        os.kill(life.pid, signal.SIGKILL)


Open: TypeAlias = Callable[..., AbstractAsyncContextManager[House]]


@asynccontextmanager
async def housing(
    folder: Path, scenario: object = "", policy: Policy = EAGER, budgets: Budgets = WATCHFUL, *, room: bool = False
) -> AsyncIterator[House]:
    """A started supervisor whose workers follow a scenario; at the end it is stopped, and nothing is left."""
    environ = {**os.environ, "FAKE_WORKER": scenario if isinstance(scenario, str) else json.dumps(scenario)}
    launch = Launch(
        command=COMMAND,
        environ=lambda generation: {**environ, "STOKER_GENERATION": str(generation)},
        socket_dir=folder,
        load=LOAD,
        prefixes=(WarmPrefix(name="system", system="you are a kind machine"),),
        sink=lambda _: None,
        budgets=lambda: budgets,
    )
    house = House(launch, policy, room)
    async with anyio.create_task_group() as tasks:
        house.supervisor.start()
        tasks.start_soon(house.supervisor.run)
        yield house
        house.supervisor.stop()
    assert house.board.current.phase == "down"
    assert psutil.Process().children(recursive=True) == []
