"""One worker slot: the machine's state, the worker that lives by it, and what is said of them.

A slot decides nothing and has no task of its own: `supervisor` tells it what happened, and gives it time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

from anyio.abc import TaskGroup

from ..ipc.control_messages import ProgressStatus, Readiness, SuccessorStatus
from ..ipc.messages import Progress
from .effects import AbandonWarmup, Drain, Effect, Kill, LoadModel, Spawn, Terminate, Warm
from .life import Life
from .lifecycle import Event, Phase, Policy, State, WarmupEnded
from .link import WorkerLink
from .machine import step
from .readiness import RESTING, describe, is_serving

MakeLife: TypeAlias = Callable[[int, Callable[[Event], None], Callable[[Progress], None]], Life]
"""Makes the life of a generation, given where to post its events and its progress."""


class Slot:
    """A worker's place.

    Args:
        make_life: Makes a generation's life.
        post: Takes what this slot's workers report.
        publish: Called when there is something new to say without a transition.
        state: Where it begins.
    """

    def __init__(
        self,
        make_life: MakeLife,
        post: Callable[[Slot, Event], None],
        publish: Callable[[], None],
        state: State | None = None,
    ) -> None:
        self.make_life = make_life
        self.proven: MakeLife | None = None
        """What made the last worker that was ready; None before the first one."""
        self.state = state or State()
        self.life: Life | None = None
        self._post = post
        self._publish = publish
        self._since = time.time()
        self._progress: ProgressStatus | None = None

    @property
    def serving(self) -> WorkerLink | None:
        """The link that new requests may go to; None while no worker is ready."""
        link = self.life.link if self.life is not None and is_serving(self.state) else None
        return None if link is None or link.lost else link

    @property
    def resting(self) -> bool:
        """Nothing lives here, and nothing will without a person."""
        return self.state.phase in RESTING

    @property
    def retry_at(self) -> float | None:
        """When the machine will try again, where it waits for that."""
        return self.state.deadline if self.state.phase is Phase.BACKOFF else None

    def step(self, event: Event, now: float, policy: Policy) -> tuple[Effect, ...]:
        """Let the machine decide; returns what is to be done."""
        old = self.state
        self.state, effects = step(old, event, now, policy)
        if self.state.phase is not old.phase:
            self._since = time.time()
        if is_serving(self.state):
            self.proven = self.make_life
        if self.state.phase is not old.phase or isinstance(event, WarmupEnded):
            self._progress = None
        return effects

    def carry_out(self, effect: Effect, tasks: TaskGroup) -> None:
        """Do what concerns the worker's process and link."""
        if isinstance(effect, Spawn):
            self._spawn(effect.generation, tasks)
        elif self.life is not None:
            _instruct(self.life, effect, tasks)

    def describe(self, heir: Slot | None, failure: str | None, departures: int) -> Readiness:
        """The public form, with what is said of an heir, of the last replacement, and of how many have ended."""
        successor = heir.as_successor() if heir else None
        return describe(
            self.state,
            self._since,
            self._progress,
            successor=successor,
            replacement_failed=failure,
            departures=departures,
        )

    def as_successor(self) -> SuccessorStatus:
        """What is said of an heir."""
        return SuccessorStatus(
            generation=self.state.generation,
            phase=self.state.phase.value,
            since=self._since,
            progress=self._progress,
            reason=self.state.doom or self.state.reason,
        )

    def _spawn(self, generation: int, tasks: TaskGroup) -> None:
        def show(progress: Progress) -> None:
            self._show(generation, progress)

        self.life = self.make_life(generation, lambda event: self._post(self, event), show)
        tasks.start_soon(self.life.run, name=f"generation {generation}")

    def _show(self, generation: int, progress: Progress) -> None:
        if generation != self.state.generation or not self.state.alive:
            return  # read from a dead worker's mailbox
        self._progress = ProgressStatus(
            stage=progress.stage, done=progress.done, total=progress.total, name=progress.name
        )
        self._publish()


def _instruct(life: Life, effect: Effect, tasks: TaskGroup) -> None:
    match effect:
        case LoadModel():
            tasks.start_soon(life.load)
        case Warm(prefixes=prefixes, ticket=ticket, restore=restore):
            tasks.start_soon(life.warm, prefixes, ticket, restore)
        case AbandonWarmup():
            tasks.start_soon(life.abandon_warmup)
        case Drain():
            tasks.start_soon(life.drain)
        case Terminate():
            life.terminate()
        case Kill():
            life.kill()
