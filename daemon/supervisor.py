"""The shell around the machine: owns the state, one inbox, carries out effects, sleeps until the deadline.

Nothing else writes the state. Every transition is published in one line; the log, the sockets and all who wait
are readers of what is published.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import TypeAlias

import anyio
from anyio.abc import TaskGroup

from ..ipc.control_messages import Departure, ProgressStatus
from ..ipc.messages import Progress, WarmPrefix
from .attention import Attention, settle
from .effects import AbandonWarmup, Drain, Effect, Kill, LoadModel, RefuseRewarm, Spawn, Terminate, Warm
from .life import Life
from .lifecycle import (
    DeadlinePassed,
    Event,
    LoadAdvanced,
    Phase,
    Policy,
    Restart,
    Rewarm,
    Start,
    State,
    Stop,
    WarmupEnded,
)
from .link import WorkerLink
from .machine import step
from .readiness import RESTING, Board, describe, is_serving

MakeLife: TypeAlias = Callable[[int, Callable[[Event], None], Callable[[Progress], None]], Life]
"""Makes the life of a generation, given where to post its events and its progress."""

REPORT_GRACE = 30.0
"""Seconds after a rewarm's timeout in which the worker may still report what it has: one prefill chunk, mostly."""


class RewarmRefused(Exception):
    """There will be no rewarm now; the message says why."""


class Supervisor:
    """Supervises one worker slot.

    Args:
        policy: The numbers.
        make_life: Makes a generation's life; tests give fakes.
        board: Where snapshots are published.
        clock: Monotonic seconds, the event loop's by default.
        attention: Whether the daemon was there to see deadlines pass.
        departures: Of generations that an earlier daemon saw end.
        last_words: Of the last of them that died unexpectedly.
    """

    def __init__(
        self,
        policy: Policy,
        make_life: MakeLife,
        board: Board,
        *,
        clock: Callable[[], float] = anyio.current_time,
        attention: Attention | None = None,
        departures: tuple[Departure, ...] = (),
        last_words: tuple[str, ...] = (),
    ) -> None:
        self._policy = policy
        self._make_life = make_life
        self._board = board
        self._clock = clock
        self._attention = attention or Attention()
        self._state = State()
        self._since = time.time()
        self._progress: ProgressStatus | None = None
        self._inbox: deque[Event] = deque()
        self._news = anyio.Event()
        self._life: Life | None = None
        self._last_words = last_words
        self._departures = deque(departures, maxlen=policy.departures_kept)
        self._tickets = count(1)
        self._rewarms: dict[int, tuple[anyio.Event, list[WarmupEnded | RefuseRewarm]]] = {}
        self._closing = False

    # -- for the other rooms -------------------------------------------------------------------------------

    @property
    def serving(self) -> WorkerLink | None:
        """The link that new requests go to; None while no worker is ready."""
        link = self._life.link if self._life is not None and is_serving(self._state) else None
        return None if link is None or link.lost else link

    @property
    def life(self) -> Life | None:
        """The living generation; None between two."""
        return self._life if self._state.alive else None

    @property
    def last_words(self) -> tuple[str, ...]:
        """The last log lines of the last worker that died unexpectedly."""
        return self._last_words

    @property
    def departures(self) -> tuple[Departure, ...]:
        """Generations that ended, oldest first, in Unix time."""
        return tuple(self._departures)

    def start(self) -> None:
        """Bring the worker up; clears a `failed`. Without effect after `stop`."""
        if not self._closing:
            self.post(Start())

    def stop(self) -> None:
        """Bring it down for good: `run` returns when it is. Said twice, running requests are not waited for."""
        self._closing = True
        self.post(Stop())

    def restart(self, *, cold: bool) -> None:
        """Replace the worker. Without effect after `stop`."""
        if not self._closing:
            self.post(Restart(cold))

    async def rewarm(self, prefixes: tuple[WarmPrefix, ...]) -> WarmupEnded:
        """Warm the live worker again; returns when it ended.

        Raises:
            RewarmRefused: If no worker is ready, another rewarm runs, or the worker died over it or fell silent.
        """
        ticket = next(self._tickets)
        done, answer = self._rewarms[ticket] = (anyio.Event(), [])
        try:
            self.post(Rewarm(ticket, prefixes))
            with anyio.move_on_after(self._policy.warmup_timeout + REPORT_GRACE):
                await done.wait()
        finally:
            del self._rewarms[ticket]
        match answer:
            case [WarmupEnded() as ended]:
                return ended
            case [RefuseRewarm(why=why)]:
                raise RewarmRefused(why)
        raise RewarmRefused(
            "the worker died during the rewarm; it is being restarted"
            if done.is_set()
            else "the worker did not report on the rewarm after its timeout"
        )

    def post(self, event: Event) -> None:
        """Put an event into the inbox. Progress twice in a row counts once, which bounds a flood of it."""
        if isinstance(event, LoadAdvanced) and self._inbox and self._inbox[-1] == event:
            return
        self._inbox.append(event)
        self._news.set()

    # -- the loop ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Supervise until stopped. Cancelled, it kills the worker and reaps it."""
        async with anyio.create_task_group() as tasks:
            while not (self._closing and self._state.phase in RESTING):
                self._advance(await self._next_event(), tasks)
            tasks.cancel_scope.cancel()

    async def _next_event(self) -> Event:
        while not self._inbox:
            self._news = anyio.Event()
            deadline = self._state.deadline
            if deadline is not None:
                deadline = self._attention.postponed(deadline)
            with anyio.move_on_after(None if deadline is None else max(0.0, deadline - self._clock())):
                await self._news.wait()
                continue
            self._attention.look(due=deadline)
            await settle()  # what has arrived may make the deadline void
            if not self._inbox and deadline is not None and self._clock() >= self._attention.not_before:
                return DeadlinePassed()
        return self._inbox.popleft()

    def _advance(self, event: Event, tasks: TaskGroup) -> None:
        old = self._state
        self._state, effects = step(old, event, self._clock(), self._policy)
        if self._state.departures is not old.departures:
            self._bury()
        if self._state.phase is not old.phase:
            self._since = time.time()
        if self._state.phase is not old.phase or isinstance(event, WarmupEnded):
            self._progress = None
        for effect in effects:
            self._carry_out(effect, tasks)
        if isinstance(event, WarmupEnded):
            self._answer(event.ticket, event)
        self._publish()

    def _publish(self) -> None:
        retry_at = self._state.deadline if self._state.phase is Phase.BACKOFF else None
        self._board.publish(describe(self._state, self._since, self._progress), retry_at)

    def _bury(self) -> None:
        gone = self._state.departures[-1]
        # Unix time is taken now: the monotonic clock stands still while the machine sleeps.
        departure = Departure(
            at=round(time.time(), 3), generation=gone.generation, cause=gone.cause, expected=gone.expected
        )
        if gone.transient and self._departures and self._departures[-1].cause == gone.cause:
            self._departures.pop()  # a lack that lasts must not push the real deaths out
        self._departures.append(departure)
        if self._life is not None and not gone.expected:
            self._last_words = self._life.last_words
        self._life = None
        for done, _ in self._rewarms.values():
            done.set()

    def _answer(self, ticket: int, answer: WarmupEnded | RefuseRewarm) -> None:
        if ticket in self._rewarms:  # else nobody waits for it any more
            done, answers = self._rewarms[ticket]
            answers.append(answer)
            done.set()

    def _show_progress(self, generation: int, progress: Progress) -> None:
        if generation != self._state.generation or not self._state.alive:
            return  # read from a dead worker's mailbox
        self._progress = ProgressStatus(
            stage=progress.stage, done=progress.done, total=progress.total, name=progress.name
        )
        self._publish()

    def _carry_out(self, effect: Effect, tasks: TaskGroup) -> None:
        if isinstance(effect, Spawn):
            on_progress = partial(self._show_progress, effect.generation)
            self._life = self._make_life(effect.generation, self.post, on_progress)
            tasks.start_soon(self._life.run, name=f"generation {effect.generation}")
        elif isinstance(effect, RefuseRewarm):
            self._answer(effect.ticket, effect)
        elif self._life is not None:
            self._instruct(self._life, effect, tasks)

    @staticmethod
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
