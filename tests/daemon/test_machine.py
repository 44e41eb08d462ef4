"""Whatever happens in whatever order, the machine keeps its promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from stoker.daemon.effects import AbandonWarmup, Effect, Kill, LoadModel, Spawn, Terminate, Warm
from stoker.daemon.lifecycle import (
    EVENTS,
    DeadlinePassed,
    Drained,
    Event,
    Exited,
    Greeted,
    LinkLost,
    LoadAdvanced,
    Loaded,
    LoadFailed,
    Outcome,
    Outnumbered,
    Phase,
    Policy,
    Restart,
    Rewarm,
    Start,
    State,
    Stop,
    Unfit,
    WarmedLater,
    WarmupEnded,
    WorkerEvent,
)
from stoker.daemon.machine import MEANINGLESS, TABLE, mermaid, step

POLICY = Policy(restart_limit=3, restore_crash_limit=1, warmup_crash_limit=2)
OPERATOR = st.sampled_from([Start(), Stop(), Restart(), Restart(cold=True), Rewarm(1), Rewarm(2), Outnumbered(3)])


NEWS: st.SearchStrategy[WorkerEvent] = st.one_of(
    st.sampled_from(
        [
            Greeted(0),
            LoadAdvanced(0),
            Loaded(0),
            WarmedLater(0, ()),
            LinkLost(0, "lost"),
            Unfit(0, "silent"),
            Drained(0),
            LoadFailed(0, "no such model", fatal=True),
            LoadFailed(0, "no memory", fatal=False),
        ]
    ),
    st.builds(Exited, st.just(0), st.just("exited with code 1"), st.floats(0, 0.999)),
    st.builds(
        WarmupEnded,
        st.just(0),
        st.sampled_from([Outcome.SUCCEEDED, Outcome.FAILED, Outcome.ABANDONED]),
        ticket=st.sampled_from([0, 1, 2]),
    ),
)
"""Anything a worker may be said to do, sensible or not; `said_by` says which generation's it was."""


def said_by(generation: int, news: WorkerEvent) -> Event:
    return cast("Event", replace(news, generation=generation))


def _is_news(event: Event) -> bool:
    return isinstance(event, WorkerEvent | DeadlinePassed)


class Walk(RuleBasedStateMachine):
    """A random walk over the machine; a model beside it remembers what must not be forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.now = 1000.0
        self.processes: dict[int, bool] = {}
        self.warmups: dict[int, bool] = {}
        self.ready_entries: dict[int, int] = {}

    def advance(self, event: Event) -> tuple[Effect, ...]:
        old = self.state
        self.state, effects = step(old, event, self.now, POLICY)
        if old.doom and old.phase is not Phase.STOPPING and _is_news(event) and not isinstance(event, Exited):
            assert self.state.phase is old.phase
        elif rule := TABLE.get((old.phase, type(event))):
            assert self.state.phase in rule.leads_to or self.state == old
        else:
            assert (old, ()) == (self.state, effects)
        self._remember(old, event, effects)
        return effects

    def _remember(self, old: State, event: Event, effects: tuple[Effect, ...]) -> None:
        if isinstance(event, Exited) and old.alive and event.generation == old.generation:
            self.processes[event.generation] = False
        if isinstance(event, WarmupEnded) and self.warmups.get(event.generation) is False:
            self.warmups[event.generation] = True
        for effect in effects:
            if isinstance(effect, Spawn):
                assert effect.generation not in self.processes
                self.processes[effect.generation] = True
            if isinstance(effect, Warm) and effect.ticket == 0:
                self.warmups[effect.generation] = False
            if isinstance(effect, AbandonWarmup):
                self.warmups[effect.generation] = True
            if isinstance(effect, LoadModel | Warm | Kill | Terminate):
                assert effect.generation == old.generation
        if self.state.phase is Phase.READY and old.phase is not Phase.READY:
            generation = self.state.generation
            self.ready_entries[generation] = self.ready_entries.get(generation, 0) + 1

    @rule(event=OPERATOR)
    def operator(self, event: Event) -> None:
        self.advance(event)

    @rule(news=NEWS)
    def living_worker(self, news: WorkerEvent) -> None:
        self.advance(said_by(self.state.generation, news))

    @rule()
    def expected_next(self) -> None:
        """The good course, so that walks get far."""
        generation = self.state.generation
        expected: dict[Phase, Event] = {
            Phase.DOWN: Start(),
            Phase.STARTING: Greeted(generation),
            Phase.LOADING: Loaded(generation),
            Phase.WARMING: WarmupEnded(generation, Outcome.SUCCEEDED),
            Phase.STOPPING: Exited(generation, "ended by SIGTERM, as asked"),
        }
        self.advance(expected.get(self.state.phase, DeadlinePassed()))

    @rule(seconds=st.floats(0.01, 400))
    def time(self, seconds: float) -> None:
        self.now += seconds
        self.advance(DeadlinePassed())

    @rule(news=NEWS, back=st.integers(1, 3))
    def dead_worker(self, news: WorkerEvent, back: int) -> None:
        """News of a dead generation."""
        before = self.state
        effects = self.advance(said_by(self.state.generation - back, news))
        assert (before, ()) == (self.state, effects)

    @invariant()
    def one_process_at_most(self) -> None:
        """At most one process lives, and it is the current generation's."""
        living = [generation for generation, lives in self.processes.items() if lives]
        assert living == ([self.state.generation] if self.state.alive else [])

    @invariant()
    def ready_only_after_warmup(self) -> None:
        """Ready is entered once for each generation, after its warmup ended or was never to be."""
        assert all(entries == 1 for entries in self.ready_entries.values())
        if self.state.phase is Phase.READY:
            assert self.state.warmup.outcome is not None
            assert self.warmups.get(self.state.generation, True)
            assert self.state.warm or self.state.reason

    @invariant()
    def nothing_waits_forever(self) -> None:
        """Every phase that time must end has a deadline; backoff always does, and within its cap."""
        timed = {Phase.STARTING, Phase.LOADING, Phase.WARMING, Phase.STOPPING, Phase.BACKOFF}
        if self.state.phase in timed:
            assert self.state.deadline is not None
        if self.state.phase is Phase.BACKOFF:
            longest = POLICY.backoff_cap * (1 + POLICY.backoff_jitter)
            assert self.state.since < (self.state.deadline or 0) <= self.state.since + longest

    @invariant()
    def rest_is_rest(self) -> None:
        """Down, failed and backing off, nothing lives; wanted means not down."""
        if self.state.phase in {Phase.DOWN, Phase.FAILED, Phase.BACKOFF}:
            assert not self.state.alive
        assert self.state.wanted or self.state.phase in {Phase.DOWN, Phase.STOPPING}


def test_walk() -> None:
    """No order of events breaks an invariant."""
    run_state_machine_as_test(Walk, settings=settings(max_examples=100, stateful_step_count=60, deadline=None))


def test_every_pair_is_decided() -> None:
    """Every pair of phase and event is either in the table or named as meaningless, and never both."""
    pairs = {(phase, event) for phase in Phase for event in EVENTS}

    assert pairs == TABLE.keys() | MEANINGLESS.keys()
    assert not TABLE.keys() & MEANINGLESS.keys()


@pytest.mark.parametrize("pair", sorted(MEANINGLESS, key=str), ids=lambda pair: f"{pair[0].value}-{pair[1].__name__}")
def test_meaningless_changes_nothing(pair: tuple[Phase, type[Event]]) -> None:
    """A meaningless event changes nothing and asks for nothing."""
    phase, event_type = pair
    state = State(phase=phase, generation=4, alive=phase not in {Phase.DOWN, Phase.BACKOFF, Phase.FAILED})
    event = _example(event_type, generation=4)

    assert step(state, event, 1e9, POLICY) == (state, ())


@pytest.mark.parametrize("phase", Phase)
def test_stale_news_changes_nothing(phase: Phase) -> None:
    """News of another generation changes nothing in any phase."""
    state = State(phase=phase, generation=4, alive=True, deadline=5.0)

    for event_type in EVENTS:
        if issubclass(event_type, WorkerEvent):
            assert step(state, _example(event_type, generation=3), 10.0, POLICY) == (state, ())


def test_early_deadline_changes_nothing() -> None:
    """A deadline that moved since somebody went to sleep for it is stale."""
    state = State(phase=Phase.STARTING, generation=1, alive=True, deadline=10.0)

    assert step(state, DeadlinePassed(), 9.9, POLICY) == (state, ())


def test_diagram_in_design_is_the_tables() -> None:
    """The state diagram in docs/design.md is the one that the table draws."""
    design = Path(__file__).parents[2] / "docs" / "design.md"

    assert f"```mermaid\n{mermaid()}\n```" in design.read_text(encoding="utf-8")


def _example(event_type: type[Event], generation: int) -> Event:
    examples: list[Event] = [
        Start(),
        Stop(),
        Restart(),
        Rewarm(7),
        Outnumbered(5),
        DeadlinePassed(),
        Greeted(generation),
        LoadAdvanced(generation),
        Loaded(generation),
        LoadFailed(generation, "why", fatal=False),
        WarmupEnded(generation, Outcome.SUCCEEDED),
        WarmedLater(generation, ()),
        LinkLost(generation, "why"),
        Unfit(generation, "why"),
        Drained(generation),
        Exited(generation, "cause"),
    ]
    return next(event for event in examples if type(event) is event_type)


def test_equal_states_decide_equally() -> None:
    """The machine is a function: the same state, event and time give the same answer."""
    state = replace(State(), wanted=True)

    assert step(state, Start(), 1.0, POLICY) == step(state, Start(), 1.0, POLICY)
