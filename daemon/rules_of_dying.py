"""Rules of the lifecycle: how a worker is doomed, and what follows from its death.

The restart limit is OTP's supervisor intensity (`supervisor:add_restart/1`): drop the stamps older than the
period, push this one, compare. "Was it ready before it died?" chooses the delay, as in s6-supervise.
"""

from __future__ import annotations

from dataclasses import replace

from .effects import Kill
from .lifecycle import (
    DeadlinePassed,
    Departure,
    Exited,
    LinkLost,
    LoadFailed,
    Phase,
    Policy,
    State,
    Unfit,
)
from .rules import Step, enter, spawn


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
    return _doom(state, event.why, now, policy, fatal=event.fatal)


def kill_unfit(state: State, event: Unfit, now: float, policy: Policy) -> Step:
    """It lives, is connected, and computes nothing, or nothing sensible."""
    return _doom(state, event.why, now, policy)


def depart(state: State, event: Exited, now: float, policy: Policy, *, expected: bool) -> State:
    """The state without the generation that is gone."""
    errand = state.errand if expected else None
    departure = Departure(now, state.generation, state.doom or errand or event.cause, expected, event.transient)
    kept = (*state.departures, departure)[-policy.departures_kept :]
    return replace(
        state, alive=False, warm=False, departures=kept, stop_step=None, doom=None, errand=None, rewarming=0
    )


def die(state: State, event: Exited, now: float, policy: Policy) -> Step:
    """It died unasked: at once again, after a pause, or never, by what is known of it."""
    gone = depart(state, event, now, policy, expected=False)
    cause = state.doom or event.cause
    if event.transient and state.doom is None:
        return _back_off(gone, cause, event.luck, now, policy)
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
        return spawn(replace(gone, failures=0), now, policy)
    return _back_off(gone, cause, event.luck, now, policy)


def _fail(state: State, why: str, now: float) -> Step:
    return enter(state, Phase.FAILED, now, None, reason=why), ()


def _back_off(state: State, cause: str, luck: float, now: float, policy: Policy) -> Step:
    # The exponent is bounded because a float overflows at 2**1024, long after the cap.
    delay = min(policy.backoff_cap, policy.backoff_base * 2.0 ** min(state.failures, 64))
    delay *= 1 + policy.backoff_jitter * luck
    return enter(state, Phase.BACKOFF, now, now + delay, failures=state.failures + 1, reason=cause), ()
