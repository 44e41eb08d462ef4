"""The rules of the worker's lifecycle: pure functions from (state, event, now, policy) to (state, effects).

Which rule is for which phase and event says the table in `machine`, which also explains what governs them all. Here
are those of the way up, to ready and rewarmed; `rules_of_stopping` and `rules_of_dying` have the two ways down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeAlias

from ..ipc.messages import PrefixReport
from .effects import AbandonWarmup, Effect, LoadModel, RefuseRewarm, Spawn, Warm
from .lifecycle import (
    DeadlinePassed,
    Greeted,
    LoadAdvanced,
    Loaded,
    Outcome,
    Outnumbered,
    Phase,
    Policy,
    Restart,
    Rewarm,
    Start,
    State,
    WarmedLater,
    Warmup,
    WarmupEnded,
)

Step: TypeAlias = tuple[State, tuple[Effect, ...]]
RuleFunction: TypeAlias = Callable[[State, Any, float, Policy], Step]


def enter(state: State, phase: Phase, now: float, deadline: float | None, **changes: Any) -> State:
    """The state in another phase."""
    return replace(state, phase=phase, since=now, deadline=deadline, **changes)


# -- starting ----------------------------------------------------------------------------------------------


def spawn(state: State, now: float, policy: Policy) -> Step:
    """The next generation."""
    generation = max(state.generation, state.taken) + 1
    newborn = enter(
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
    return spawn(replace(state, wanted=True, failures=0, deaths=(), warmup_crashes=0), now, policy)


def restart_from_rest(state: State, event: Restart, now: float, policy: Policy) -> Step:
    """Nothing runs: a restart is a start."""
    return start(replace(state, cold=event.cold), Start(), now, policy)


def retry(state: State, _: DeadlinePassed, now: float, policy: Policy) -> Step:
    """The backoff is over."""
    return spawn(state, now, policy)


def count_on(state: State, event: Outnumbered, _: float, __: Policy) -> Step:
    """Generation numbers are unique over all slots, and the newest worker has the highest."""
    return replace(state, taken=max(state.taken, event.generation)), ()


def load(state: State, event: Greeted, now: float, policy: Policy) -> Step:
    """Hello was said; the model may be loaded."""
    loading = enter(state, Phase.LOADING, now, now + policy.load_stall_timeout)
    return loading, (LoadModel(event.generation),)


def extend_load(state: State, _: LoadAdvanced, now: float, policy: Policy) -> Step:
    """Progress, not time, is what loading owes."""
    return replace(state, deadline=now + policy.load_stall_timeout), ()


def warm_up(state: State, event: Loaded, now: float, policy: Policy) -> Step:
    """The model is loaded: warm it, unless something speaks against it."""
    skipped = _why_no_warmup(state, policy)
    if skipped is None:
        warming = enter(state, Phase.WARMING, now, now + policy.warmup_timeout)
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
    return enter(state, Phase.READY, now, None, warm=warm, reason=reason, warmup=report, cold=False), ()


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
        return _reported(state, (*event.prefixes, *state.warmup.prefixes)), ()
    if event.ticket != state.rewarming:
        return state, ()
    done = replace(state, rewarming=0, deadline=None)
    if event.outcome is not Outcome.SUCCEEDED:
        return done, ()
    return replace(done, warm=True, reason=None, warmup=Warmup(event.outcome, event.seconds, event.prefixes)), ()


def warmed_later(state: State, event: WarmedLater, _: float, __: Policy) -> Step:
    """Idle time has finished what an abandoned warmup left: warm after all, once everything configured is whole.

    The outcome stays what it was: how the warmup ended is history, whether the worker is warm is not. What is learned
    may be missing, as in a warmup that succeeds.
    """
    if not state.warmup.prefixes:
        # It has overtaken the warmup's own report, which may yet tell of prefixes that can't be computed.
        return replace(state, warmup=replace(state.warmup, prefixes=event.prefixes)), ()
    return _reported(state, (*state.warmup.prefixes, *event.prefixes)), ()


def _reported(state: State, reports: Iterable[PrefixReport]) -> State:
    """What is known of an abandoned warmup's prefixes, the latest of each name last: whole they may be by now."""
    prefixes = tuple({report.name: report for report in reports}.values())
    done = replace(state, warmup=replace(state.warmup, prefixes=prefixes))
    whole = all(one.optional or (one.tokens_warm == one.tokens and not one.failed) for one in prefixes)
    return replace(done, warm=True, reason=None) if whole and state.warmup.outcome is Outcome.ABANDONED else done


def abandon_rewarm(state: State, _: DeadlinePassed, __: float, ___: Policy) -> Step:
    """Out of time: the service goes on as it was."""
    return replace(state, rewarming=0, deadline=None), (AbandonWarmup(state.generation),)
