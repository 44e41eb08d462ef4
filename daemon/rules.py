"""The rules of the worker's lifecycle: pure functions from (state, event, now, policy) to (state, effects).

Which rule is for which phase and event says the table in `machine`, which also explains what governs them all.

The restart limit is OTP's supervisor intensity (`supervisor:add_restart/1`): drop the stamps older than the
period, push this one, compare. "Was it ready before it died?" chooses the delay, as in s6-supervise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from .lifecycle import (
    AbandonWarmup,
    DeadlinePassed,
    Departure,
    Drain,
    Effect,
    Event,
    Exited,
    Greeted,
    Kill,
    LinkLost,
    LoadAdvanced,
    Loaded,
    LoadFailed,
    LoadModel,
    Outcome,
    Phase,
    Policy,
    RefuseRewarm,
    Restart,
    Rewarm,
    Spawn,
    Start,
    State,
    Stop,
    StopStep,
    Terminate,
    Unfit,
    Warm,
    Warmup,
    WarmupEnded,
)

Step: TypeAlias = tuple[State, tuple[Effect, ...]]
RuleFunction: TypeAlias = Callable[[State, Any, float, Policy], Step]


def _enter(state: State, phase: Phase, now: float, deadline: float | None, **changes: Any) -> State:
    return replace(state, phase=phase, since=now, deadline=deadline, **changes)


# -- starting ----------------------------------------------------------------------------------------------


def _spawn(state: State, now: float, policy: Policy) -> Step:
    generation = state.generation + 1
    newborn = _enter(
        state,
        Phase.STARTING,
        now,
        now + policy.hello_timeout,
        generation=generation,
        alive=True,
        warm=False,
        reason=None,
        warmup=Warmup(),
        rewarming=0,
        stop_step=None,
        doom=None,
        fatal=False,
    )
    return newborn, (Spawn(generation),)


def start(state: State, _: Start, now: float, policy: Policy) -> Step:
    """A person who starts it has seen what went wrong: the count of failures begins anew."""
    return _spawn(replace(state, wanted=True, failures=0, deaths=(), warmup_crashes=0), now, policy)


def restart_from_rest(state: State, event: Restart, now: float, policy: Policy) -> Step:
    """Nothing runs: a restart is a start."""
    return start(replace(state, cold=event.cold), Start(), now, policy)


def retry(state: State, _: DeadlinePassed, now: float, policy: Policy) -> Step:
    """The backoff is over."""
    return _spawn(state, now, policy)


def load(state: State, event: Greeted, now: float, policy: Policy) -> Step:
    """Hello was said; the model may be loaded."""
    loading = _enter(state, Phase.LOADING, now, now + policy.load_stall_timeout)
    return loading, (LoadModel(event.generation),)


def extend_load(state: State, _: LoadAdvanced, now: float, policy: Policy) -> Step:
    """Progress, not time, is what loading owes."""
    return replace(state, deadline=now + policy.load_stall_timeout), ()


def warm_up(state: State, event: Loaded, now: float, policy: Policy) -> Step:
    """The model is loaded: warm it, unless something speaks against it."""
    skipped = _why_no_warmup(state, policy)
    if skipped is None:
        warming = _enter(state, Phase.WARMING, now, now + policy.warmup_timeout)
        restore = state.warmup_crashes < policy.restore_crash_limit
        return warming, (Warm(event.generation, restore=restore),)
    return _ready(state, now, Outcome.DISABLED, skipped)


def _why_no_warmup(state: State, policy: Policy) -> str | None:
    if not policy.warmup_enabled:
        return "disabled"
    if state.cold:
        return "cold restart"
    if state.warmup_crashes >= policy.warmup_crash_limit:
        return "warmup crashed the worker"
    return None


# -- ready -------------------------------------------------------------------------------------------------


def _ready(state: State, now: float, outcome: Outcome, reason: str | None, warmup: Warmup | None = None) -> Step:
    """The only way into `ready`; every caller comes from a phase that is never entered again in this life."""
    warm = outcome is Outcome.SUCCEEDED
    report = replace(warmup or Warmup(), outcome=outcome)
    return _enter(state, Phase.READY, now, None, warm=warm, reason=reason, warmup=report, cold=False), ()


def finish_warmup(state: State, event: WarmupEnded, now: float, _: Policy) -> Step:
    """Warm, or not: the service is ready all the same, and says which."""
    reason = None if event.outcome is Outcome.SUCCEEDED else event.reason or event.outcome.value
    report = Warmup(event.outcome, event.seconds, event.prefixes)
    ready, effects = _ready(state, now, event.outcome, reason, report)
    return replace(ready, warmup_crashes=0), effects


def abandon_warmup(state: State, _: DeadlinePassed, now: float, policy: Policy) -> Step:
    """Out of time: ready without warmth. The worker's report of what it has comes later."""
    report = Warmup(Outcome.ABANDONED, policy.warmup_timeout)
    ready, _effects = _ready(state, now, Outcome.ABANDONED, "timeout", report)
    return ready, (AbandonWarmup(state.generation),)


def rewarm(state: State, event: Rewarm, now: float, policy: Policy) -> Step:
    """Warm the live worker, which stays ready; one rewarm at a time."""
    if state.rewarming:
        return state, (RefuseRewarm(event.ticket, "a rewarm is already under way; wait for it"),)
    rewarming = replace(state, rewarming=event.ticket, deadline=now + policy.warmup_timeout)
    return rewarming, (Warm(state.generation, event.prefixes, event.ticket),)


def refuse_rewarm(state: State, event: Rewarm, _: float, __: Policy) -> Step:
    """Only a ready worker can be rewarmed; the others will be warmed anyway, or are not there."""
    why = f"the worker is {state.phase.value}; try again when it is ready"
    return state, (RefuseRewarm(event.ticket, why),)


def finish_rewarm(state: State, event: WarmupEnded, _: float, __: Policy) -> Step:
    """A rewarm that failed takes no warmth away; the late report of an abandoned warmup adds its prefixes."""
    if event.ticket == 0:
        return replace(state, warmup=replace(state.warmup, prefixes=event.prefixes)), ()
    if event.ticket != state.rewarming:
        return state, ()
    done = replace(state, rewarming=0, deadline=None)
    if event.outcome is not Outcome.SUCCEEDED:
        return done, ()
    return replace(done, warm=True, reason=None, warmup=Warmup(event.outcome, event.seconds, event.prefixes)), ()


def abandon_rewarm(state: State, _: DeadlinePassed, __: float, ___: Policy) -> Step:
    """Out of time: the service goes on as it was."""
    return replace(state, rewarming=0, deadline=None), (AbandonWarmup(state.generation),)


# -- stopping ----------------------------------------------------------------------------------------------


def _terminate(state: State, now: float, policy: Policy) -> Step:
    stopping = _enter(state, Phase.STOPPING, now, now + policy.stop_grace, stop_step=StopStep.TERMINATING)
    return stopping, (Terminate(state.generation),)


def stop_early(state: State, _: Stop, now: float, policy: Policy) -> Step:
    """Not ready yet, so nobody is being served."""
    return _terminate(replace(state, wanted=False, reason="stopping"), now, policy)


def restart_early(state: State, event: Restart, now: float, policy: Policy) -> Step:
    """Whoever restarts a worker that is still starting wants a fresh one, not this one."""
    return _terminate(replace(state, cold=event.cold, reason="restarting"), now, policy)


def _drain(state: State, now: float, policy: Policy) -> Step:
    deadline = now + policy.drain_timeout
    draining = _enter(state, Phase.STOPPING, now, deadline, stop_step=StopStep.DRAINING, rewarming=0)
    given_up = (AbandonWarmup(state.generation),) if state.rewarming else ()
    return draining, (*given_up, Drain(state.generation))


def stop_gently(state: State, _: Stop, now: float, policy: Policy) -> Step:
    """Running requests may end first."""
    return _drain(replace(state, wanted=False, reason="stopping"), now, policy)


def restart_gently(state: State, event: Restart, now: float, policy: Policy) -> Step:
    """Running requests may end first; new ones wait for the next generation."""
    return _drain(replace(state, cold=event.cold, reason="restarting"), now, policy)


def stop_sooner(state: State, _: Stop, now: float, policy: Policy) -> Step:
    """Asked again: drain no longer. A restart under way becomes a stop."""
    hurried = state.stop_step is StopStep.DRAINING and not state.wanted
    unwanted = replace(state, wanted=False, reason="stopping")
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
    gone = _depart(state, event, now, policy, expected=state.stop_step is not StopStep.DRAINING)
    if gone.wanted:
        return _spawn(gone, now, policy)
    return _enter(gone, Phase.DOWN, now, None, reason="stopped"), ()


def stop_at_rest(state: State, _: Stop, now: float, __: Policy) -> Step:
    """Nothing runs; only a retry is called off."""
    return _enter(state, Phase.DOWN, now, None, wanted=False, reason="stopped"), ()


# -- dying -------------------------------------------------------------------------------------------------


def _doom(state: State, why: str, now: float, policy: Policy, *, fatal: bool = False) -> Step:
    doomed = replace(state, doom=why, fatal=fatal, deadline=now + policy.kill_interval)
    return doomed, (Kill(state.generation),)


def kill_again(state: State, now: float, policy: Policy) -> Step:
    """It outlived KILL, so it sits in the kernel; nothing else can be done about it."""
    return replace(state, deadline=now + policy.kill_interval), (Kill(state.generation),)


def kill_mute(state: State, _: DeadlinePassed, now: float, policy: Policy) -> Step:
    """It never said hello."""
    return _doom(state, f"said no hello within {policy.hello_timeout:g} s of its start", now, policy)


def kill_stalled(state: State, _: DeadlinePassed, now: float, policy: Policy) -> Step:
    """Loading stopped moving."""
    return _doom(state, f"loading made no progress for {policy.load_stall_timeout:g} s", now, policy)


def kill_refused(state: State, event: LoadFailed, now: float, policy: Policy) -> Step:
    """The worker can't serve this model."""
    return _doom(state, event.why, now, policy, fatal=event.fatal)


def kill_unlinked(state: State, event: LinkLost, now: float, policy: Policy) -> Step:
    """A worker that can't be talked to is of no use, even if its process lives."""
    return _doom(state, event.why, now, policy)


def kill_unfit(state: State, event: Unfit, now: float, policy: Policy) -> Step:
    """It lives, is connected, and computes nothing, or nothing sensible."""
    return _doom(state, event.why, now, policy)


def _depart(state: State, event: Exited, now: float, policy: Policy, *, expected: bool) -> State:
    departure = Departure(now, state.generation, state.doom or event.cause, expected)
    kept = (*state.departures, departure)[-policy.departures_kept :]
    return replace(state, alive=False, warm=False, departures=kept, stop_step=None, doom=None, rewarming=0)


def die(state: State, event: Exited, now: float, policy: Policy) -> Step:
    """It died unasked: at once again, after a pause, or never, by what is known of it."""
    gone = _depart(state, event, now, policy, expected=False)
    cause = state.doom or event.cause
    recent = tuple(at for at in state.deaths if at > now - policy.restart_period)
    gone = replace(gone, deaths=(*recent, now))
    if state.phase is Phase.WARMING:
        gone = replace(gone, warmup_crashes=state.warmup_crashes + 1)
    if state.fatal or event.fatal:
        return _fail(gone, cause, now)
    if len(gone.deaths) > policy.restart_limit:
        limit = f"died {len(gone.deaths)} times within {policy.restart_period:g} s; last: {cause}"
        return _fail(gone, limit, now)
    if state.phase is Phase.READY and now - state.since >= policy.healthy_after:
        return _spawn(replace(gone, failures=0), now, policy)
    return _back_off(gone, cause, event.luck, now, policy)


def _fail(state: State, why: str, now: float) -> Step:
    return _enter(state, Phase.FAILED, now, None, reason=why), ()


def _back_off(state: State, cause: str, luck: float, now: float, policy: Policy) -> Step:
    # The exponent is bounded because a float overflows at 2**1024, long after the cap.
    delay = min(policy.backoff_cap, policy.backoff_base * 2.0 ** min(state.failures, 64))
    delay *= 1 + policy.backoff_jitter * luck
    return _enter(state, Phase.BACKOFF, now, now + delay, failures=state.failures + 1, reason=cause), ()
