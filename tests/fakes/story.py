"""The pure machine with a clock that stands still unless told: for stories of what leads to what."""

from __future__ import annotations

from dataclasses import dataclass, field

from stoker.daemon.effects import Effect
from stoker.daemon.lifecycle import (
    DeadlinePassed,
    Event,
    Greeted,
    Loaded,
    Outcome,
    Phase,
    Policy,
    Start,
    State,
    WarmupEnded,
)
from stoker.daemon.machine import step
from stoker.ipc.messages import PrefixReport

PREFIX = PrefixReport(name="system", tokens=10, tokens_warm=4, source="prefilled", seconds=1.0)


@dataclass
class Story:
    """A machine with a clock that stands still unless told."""

    policy: Policy = field(default_factory=Policy)
    state: State = field(default_factory=State)
    now: float = 0.0

    def tell(self, *events: Event, after: float = 0.0) -> tuple[Effect, ...]:
        """Apply events, the first after some seconds; return the last one's effects."""
        self.now += after
        effects: tuple[Effect, ...] = ()
        for event in events:
            self.state, effects = step(self.state, event, self.now, self.policy)
        return effects

    def until_deadline(self) -> tuple[Effect, ...]:
        """Sleep to the deadline and say so."""
        assert self.state.deadline is not None
        self.now = self.state.deadline
        return self.tell(DeadlinePassed())

    def up_to(self, phase: Phase) -> Story:
        """Take the good course to a phase."""
        generation = self.state.generation + 1
        course: list[tuple[Phase, Event]] = [
            (Phase.STARTING, Start()),
            (Phase.LOADING, Greeted(generation)),
            (Phase.WARMING, Loaded(generation)),
            (Phase.READY, WarmupEnded(generation, Outcome.SUCCEEDED)),
        ]
        for reached, event in course:
            self.tell(event)
            if reached is phase:
                break
        assert self.state.phase is phase
        return self
