"""Rules of the lifecycle: a person's stop or restart, from the drain to the exit."""

from __future__ import annotations

from dataclasses import replace

from .effects import AbandonWarmup, Drain, Kill, Terminate
from .lifecycle import (
    DeadlinePassed,
    Event,
    Exited,
    Phase,
    Policy,
    Restart,
    Start,
    State,
    Stop,
    StopStep,
)
from .rules import Step, enter, spawn
from .rules_of_dying import depart


def _terminate(state: State, now: float, policy: Policy) -> Step:
    stopping = enter(state, Phase.STOPPING, now, now + policy.stop_grace, stop_step=StopStep.TERMINATING)
    return stopping, (Terminate(state.generation),)


def stop_early(state: State, event: Stop, now: float, policy: Policy) -> Step:
    """Not ready yet, so nobody is being served."""
    return _terminate(replace(state, wanted=False, reason="stopping", errand=event.why), now, policy)


def restart_early(state: State, event: Restart, now: float, policy: Policy) -> Step:
    """Whoever restarts a worker that is still starting wants a fresh one, not this one."""
    return _terminate(replace(state, cold=event.cold, reason="restarting", errand=event.why), now, policy)


def _drain(state: State, now: float, policy: Policy) -> Step:
    deadline = now + policy.drain_timeout
    draining = enter(state, Phase.STOPPING, now, deadline, stop_step=StopStep.DRAINING, rewarming=0)
    given_up = (AbandonWarmup(state.generation),) if state.rewarming else ()
    return draining, (*given_up, Drain(state.generation))


def stop_gently(state: State, event: Stop, now: float, policy: Policy) -> Step:
    """Running requests may end first."""
    return _drain(replace(state, wanted=False, reason="stopping", errand=event.why), now, policy)


def restart_gently(state: State, event: Restart, now: float, policy: Policy) -> Step:
    """Running requests may end first; new ones wait for the next generation."""
    return _drain(replace(state, cold=event.cold, reason="restarting", errand=event.why), now, policy)


def stop_sooner(state: State, event: Stop, now: float, policy: Policy) -> Step:
    """Asked again: drain no longer. A restart under way becomes a stop."""
    hurried = state.stop_step is StopStep.DRAINING and not state.wanted
    unwanted = replace(state, wanted=False, reason="stopping", errand=event.why)
    return _terminate(unwanted, now, policy) if hurried else (unwanted, ())


def start_after_stop(state: State, _: Start, __: float, ___: Policy) -> Step:
    """Only the intent flips; the exit will read it."""
    return replace(state, wanted=True, reason="restarting"), ()


def restart_after_stop(state: State, event: Restart, __: float, ___: Policy) -> Step:
    """Only the intent flips; the exit will read it."""
    return replace(state, wanted=True, cold=event.cold, reason="restarting"), ()


def end_drain(state: State, _: Event, now: float, policy: Policy) -> Step:
    """Nothing runs any more, or nothing can."""
    if state.stop_step is not StopStep.DRAINING:
        return state, ()
    return _terminate(state, now, policy)


def escalate_stop(state: State, _: DeadlinePassed, now: float, policy: Policy) -> Step:
    """Drain, then TERM, then KILL, each with its budget."""
    if state.stop_step is StopStep.DRAINING:
        return _terminate(state, now, policy)
    killing = replace(state, stop_step=StopStep.KILLING, deadline=now + policy.kill_interval)
    return killing, (Kill(state.generation),)


def finish_stop(state: State, event: Exited, now: float, policy: Policy) -> Step:
    """Gone as ordered: up again at once if that is wanted."""
    gone = depart(state, event, now, policy, expected=state.stop_step is not StopStep.DRAINING)
    if gone.wanted:
        return spawn(gone, now, policy)
    return enter(gone, Phase.DOWN, now, None, reason="stopped"), ()


def stop_at_rest(state: State, _: Stop, now: float, __: Policy) -> Step:
    """Nothing runs; only a retry is called off."""
    return enter(state, Phase.DOWN, now, None, wanted=False, reason="stopped"), ()
