"""A supervisor on a stage: fake lives, and a record of all that was published. Made for virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from stoker.daemon.life import Life
from stoker.daemon.lifecycle import Event, Policy
from stoker.daemon.readiness import NOTHING_YET, Board
from stoker.daemon.supervisor import Supervisor
from stoker.ipc.control_messages import Readiness
from stoker.ipc.messages import Progress
from tests.fakes.fake_life import Course, FakeLife


@dataclass
class Scene:
    """A supervisor with fake lives: the first course is the first generation's, the last one repeats."""

    courses: tuple[Course, ...]
    policy: Policy
    room: Callable[[Life], bool] = lambda _: False
    board: Board = field(default_factory=lambda: Board(NOTHING_YET))
    lives: list[FakeLife] = field(default_factory=list)
    seen: list[tuple[float, Readiness]] = field(default_factory=list)
    began: float = field(default_factory=anyio.current_time)

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(self.policy, self.make_life, self.board, room=self.room)

    @property
    def now(self) -> float:
        return round(anyio.current_time() - self.began, 3)

    @property
    def phases(self) -> list[tuple[float, str]]:
        """When each phase was entered, without repetitions."""
        phases: list[tuple[float, str]] = []
        for at, readiness in self.seen[1:]:
            if not phases or phases[-1][1] != readiness.phase:
                phases.append((at, readiness.phase))
        return phases

    def make_life(
        self, generation: int, post: Callable[[Event], None], on_progress: Callable[[Progress], None]
    ) -> FakeLife:
        course = self.courses[min(len(self.lives), len(self.courses) - 1)]
        self.lives.append(FakeLife(generation, post, on_progress, course))
        return self.lives[-1]

    async def follow(self) -> None:
        async for readiness in self.board.watch():
            self.seen.append((self.now, readiness))

    async def until(self, phase: str, generation: int = 0) -> Readiness:
        """The snapshot when the phase is reached by a generation from this one on."""
        readiness = await self.board.wait(lambda r: r.phase == phase and r.generation >= generation, 100_000)
        assert readiness.phase == phase
        await anyio.wait_all_tasks_blocked()
        return readiness


@asynccontextmanager
async def supervised(*courses: Course, policy: Policy | None = None, room: bool = False) -> AsyncIterator[Scene]:
    """A started supervisor, and what it does; it is cancelled at the end. `room`: for two workers."""
    scene = Scene(courses or (Course(),), policy or Policy(backoff_jitter=0.0), lambda _: room)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.follow)
        await anyio.wait_all_tasks_blocked()
        scene.supervisor.start()
        tasks.start_soon(scene.supervisor.run)
        yield scene
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


def living(scene: Scene) -> list[int]:
    """Generations whose workers were not reaped yet."""
    return [life.generation for life in scene.lives if not life.reaped]
