"""The shell around the machines: owns the slots, one inbox, carries out effects, sleeps until the next deadline.

Nothing else writes their state. Mostly there is one slot; while a worker is replaced beside another there are two
(`succession` says when). Every transition is published in one line; the log, the sockets and all who wait are readers
of what is published.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from ..ipc.control_messages import Departure
from ..ipc.messages import WarmPrefix
from .attention import Attention, settle
from .effects import Effect, RefuseRewarm
from .life import Life
from .lifecycle import (
    DeadlinePassed,
    Event,
    Exited,
    LoadAdvanced,
    Outnumbered,
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
from .readiness import Board, is_serving
from .rewarms import Rewarms
from .slot import MakeLife, Slot
from .succession import (
    AskAgain,
    CurrentGone,
    Dismiss,
    GoBack,
    HeirGone,
    HeirReady,
    InPlace,
    OldGone,
    Promote,
    Raise,
    Stage,
    Succession,
    SuccessionEffect,
    SuccessionEvent,
    Swap,
    TrialFailed,
    TrialPassed,
    Wanted,
    Wish,
    decide,
)


class Supervisor:
    """Supervises one model's worker, and its successor while it is replaced.

    Args:
        policy: The numbers.
        make_life: Makes a generation's life; tests give fakes.
        board: Where snapshots are published.
        clock: Monotonic seconds, the event loop's by default.
        attention: Whether the daemon was there to see deadlines pass.
        room: Whether there is room for another worker beside a living one; without it, replacements are in place.
    """

    def __init__(
        self,
        policy: Policy,
        make_life: MakeLife,
        board: Board,
        *,
        clock: Callable[[], float] = anyio.current_time,
        attention: Attention | None = None,
        room: Callable[[Life], bool] = lambda _: False,
    ) -> None:
        self.policy = policy
        self._board = board
        self._clock = clock
        self._attention = attention or Attention()
        self._room = room
        self._current = Slot(make_life, self._post_from, self._publish)
        self._heir: Slot | None = None
        self._old: Slot | None = None
        self._succession = Succession()
        self._inbox: deque[tuple[Slot | None, Event | Wish]] = deque()
        self._news = anyio.Event()
        self._last_words: tuple[str, ...] = ()
        self._departures: deque[Departure] = deque(maxlen=policy.departures_kept)
        self._ended = 0
        self._rewarms = Rewarms()
        self._closing = False
        self._hurried = False

    # -- for the other rooms -------------------------------------------------------------------------------

    @property
    def serving(self) -> WorkerLink | None:
        """The link that new requests go to; None while no worker is ready."""
        return self._current.serving

    @property
    def life(self) -> Life | None:
        """The living generation; None between two."""
        return self._current.life if self._current.state.alive else None

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

    def restart(self, *, cold: bool = False, why: str | None = None, make_life: MakeLife | None = None) -> None:
        """Replace the worker: beside the old one where there is room, else in place. Without effect after `stop`.

        Args:
            cold: The new one is not warmed.
            why: The cause of the old one's departure.
            make_life: Makes the lives from the new one on; None: as before.
        """
        if not self._closing:
            self._put(None, Wish(cold, why, make_life))

    async def rewarm(self, prefixes: tuple[WarmPrefix, ...]) -> WarmupEnded:
        """Warm the live worker again; returns when it ended.

        Raises:
            RewarmRefused: If no worker is ready, another rewarm runs, or the worker died over it or fell silent.
        """
        return await self._rewarms.ask(self.post, prefixes, self.policy.warmup_timeout)

    def post(self, event: Event) -> None:
        """Put an event for the current worker's slot into the inbox."""
        self._put(None, event)

    def _post_from(self, slot: Slot, event: Event) -> None:
        self._put(slot, event)

    def _put(self, slot: Slot | None, news: Event | Wish) -> None:
        """Into the inbox. Progress twice in a row counts once, which bounds a flood of it."""
        if isinstance(news, LoadAdvanced) and self._inbox and self._inbox[-1] == (slot, news):
            return
        self._inbox.append((slot, news))
        self._news.set()

    # -- the loop ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Supervise until stopped. Cancelled, it kills the workers and reaps them."""
        async with anyio.create_task_group() as tasks:
            while not (self._closing and all(slot.resting for slot in self._slots())):
                slot, news = await self._next()
                self._deal_with(slot or self._current, news, tasks)
                self._publish()
            tasks.cancel_scope.cancel()

    def _slots(self) -> list[Slot]:
        return [slot for slot in (self._current, self._heir, self._old) if slot is not None]

    async def _next(self) -> tuple[Slot | None, Event | Wish]:
        while not self._inbox:
            self._news = anyio.Event()
            slot = self._soonest()
            deadline = slot.state.deadline
            due = None if deadline is None else self._attention.postponed(deadline)
            with anyio.move_on_after(None if due is None else max(0.0, due - self._clock())):
                await self._news.wait()
                continue
            self._attention.look(due=due)
            await settle()  # what has arrived may make the deadline void
            if not self._inbox and self._clock() >= self._attention.not_before:
                return slot, DeadlinePassed()
        return self._inbox.popleft()

    def _soonest(self) -> Slot:
        """The slot with the earliest deadline."""
        return min(self._slots(), key=lambda slot: math.inf if slot.state.deadline is None else slot.state.deadline)

    def _deal_with(self, slot: Slot, news: Event | Wish, tasks: TaskGroup) -> None:
        if isinstance(news, Wish):
            self._succeed(self._wanted(news), tasks)
            return
        if isinstance(news, Stop):
            self._stop_others(news, tasks)
        if isinstance(news, Exited) and slot is self._current and self._heir and not self._closing:
            self._give_way(slot, tasks)
        self._advance(slot, news, tasks)
        if not self._closing and (happened := self._noticed(slot)) is not None:
            self._succeed(happened, tasks)

    def _advance(self, slot: Slot, event: Event, tasks: TaskGroup) -> None:
        if isinstance(event, Rewarm):
            self._rewarms.heard(event.ticket, slot)
        before = slot.state.departures
        effects = slot.step(event, self._clock(), self.policy)
        if slot.state.departures is not before:
            self._bury(slot)
        for effect in effects:
            self._carry_out(slot, effect, tasks)
        if isinstance(event, WarmupEnded):
            self._rewarms.answer(event.ticket, event)

    def _publish(self) -> None:
        heir = self._heir if self._succession.stage is Stage.PREPARING else None
        snapshot = self._current.describe(heir, self._succession.failure, self._ended)
        self._board.publish(snapshot, self._current.retry_at)

    def _bury(self, slot: Slot) -> None:
        gone = slot.state.departures[-1]
        self._ended += 1
        # Unix time is taken now: the monotonic clock stands still while the machine sleeps.
        departure = Departure(
            at=round(time.time(), 3), generation=gone.generation, cause=gone.cause, expected=gone.expected
        )
        if gone.transient and self._departures and self._departures[-1].cause == gone.cause:
            self._departures.pop()  # a lack that lasts must not push the real deaths out
        self._departures.append(departure)
        if slot.life is not None and not gone.expected:
            self._last_words = slot.life.last_words
        slot.life = None
        self._rewarms.lose(slot)

    def _carry_out(self, slot: Slot, effect: Effect, tasks: TaskGroup) -> None:
        if isinstance(effect, RefuseRewarm):
            self._rewarms.answer(effect.ticket, effect)
        else:
            slot.carry_out(effect, tasks)

    def _give_way(self, slot: Slot, tasks: TaskGroup) -> None:
        """The current worker died while an heir is coming: its own machine is not to bring up a third one."""
        if self._succession.stage is Stage.PREPARING:
            self._advance(slot, Stop(), tasks)

    # -- replacing -----------------------------------------------------------------------------------------

    def _wanted(self, wish: Wish) -> Wanted:
        current = self._current
        served = is_serving(current.state) and current.life is not None and current.state.wanted
        beside = served and current.life is not None and self._room(current.life)
        return Wanted(wish, beside=beside, proven=current.proven is not None)

    def _noticed(self, slot: Slot) -> SuccessionEvent | None:
        """What a slot's new state means for the succession."""
        if self._succession.stage is Stage.TRYING:
            return self._tried()
        if slot is self._heir:
            if is_serving(slot.state):
                return HeirReady()
            if not slot.state.alive:
                return HeirGone(slot.state.reason or "it was ended")
        elif slot is self._old and slot.resting:
            return OldGone()
        elif slot is self._current and slot.state.phase is Phase.DOWN:
            return CurrentGone()
        return None

    def _tried(self) -> SuccessionEvent | None:
        """A trial has one try, as beside; but that nothing can be spawned for want of memory is not its fault."""
        state = self._current.state
        if state.phase is Phase.FAILED or (state.phase is Phase.BACKOFF and not state.departures[-1].transient):
            return TrialFailed(state.reason or "it did not become ready")
        return TrialPassed() if is_serving(state) else None

    def _succeed(self, event: SuccessionEvent, tasks: TaskGroup) -> None:
        self._succession, effects = decide(self._succession, event)
        if isinstance(event, HeirGone):
            self._heir = None
        if isinstance(event, OldGone):
            self._old = None
        for effect in effects:
            self._effect(effect, tasks)

    def _effect(self, effect: SuccessionEffect, tasks: TaskGroup) -> None:
        match effect:
            case Raise(wish=wish):
                self._raise_heir(wish, tasks)
            case InPlace(wish=wish):
                self._current.make_life = wish.changed or self._current.make_life
                self._advance(self._current, Restart(wish.cold, wish.why), tasks)
            case Swap(why=why):
                self._swap(why, tasks)
            case Promote() if self._heir is not None:
                self._heir.proven = self._current.proven
                self._current, self._heir = self._heir, None
            case Dismiss(why=why) if self._heir is not None:
                self._advance(self._heir, Stop(why), tasks)
            case AskAgain(wish=wish):
                self._put(None, wish)
            case GoBack():
                self._current.make_life = self._current.proven or self._current.make_life
                self._advance(self._current, Restart(), tasks)

    def _raise_heir(self, wish: Wish, tasks: TaskGroup) -> None:
        taken = max(self._current.state.generation, self._current.state.taken)
        state = State(generation=taken, cold=wish.cold)
        heir = Slot(wish.changed or self._current.make_life, self._post_from, self._publish, state)
        self._heir = heir
        self._advance(heir, Start(), tasks)
        self._advance(self._current, Outnumbered(heir.state.generation), tasks)

    def _swap(self, why: str | None, tasks: TaskGroup) -> None:
        """The one instant in which new requests change over."""
        if self._heir is None:
            return
        self._old, self._current, self._heir = self._current, self._heir, None
        cause = f"replaced by generation {self._current.state.generation}" + (f": {why}" if why else "")
        self._advance(self._old, Stop(cause), tasks)

    def _stop_others(self, stop: Stop, tasks: TaskGroup) -> None:
        """An heir goes at once; a worker that drains already because it was replaced, when we are asked twice."""
        if self._heir is not None:
            self._advance(self._heir, stop, tasks)
        if self._old is not None and self._hurried:
            self._advance(self._old, stop, tasks)
        self._hurried = True
