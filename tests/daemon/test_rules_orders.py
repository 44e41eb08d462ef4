"""What becomes of a person's orders: stop, start, restart, rewarm."""

from __future__ import annotations

import pytest

from stoker.daemon.effects import AbandonWarmup, Drain, Kill, RefuseRewarm, Spawn, Terminate, Warm
from stoker.daemon.lifecycle import (
    Drained,
    Exited,
    Loaded,
    Outcome,
    Phase,
    Policy,
    Restart,
    Rewarm,
    Start,
    Stop,
    WarmupEnded,
)
from tests.fakes.story import PREFIX, Story


def test_stop_drains_then_terminates_then_kills() -> None:
    """A stop lets running requests end, then asks the process, then ends it; each step has its own budget."""
    story = Story(Policy(drain_timeout=30, stop_grace=5)).up_to(Phase.READY)

    assert story.tell(Stop()) == (Drain(1),)
    assert story.until_deadline() == (Terminate(1),)
    assert story.now == 30
    assert story.until_deadline() == (Kill(1),)
    assert story.now == 35
    story.tell(Exited(1, "ended by SIGKILL, as asked"))
    assert (story.state.phase, story.state.deaths) == (Phase.DOWN, ())


def test_drained_stop_is_quick() -> None:
    """When the last request ends, a stop waits no longer."""
    story = Story().up_to(Phase.READY)
    story.tell(Stop())

    assert story.tell(Drained(1)) == (Terminate(1),)


def test_second_stop_does_not_drain() -> None:
    """Stop said twice ends the drain."""
    story = Story().up_to(Phase.READY)
    story.tell(Stop())

    assert story.tell(Stop()) == (Terminate(1),)


def test_first_stop_during_restart_still_drains() -> None:
    """A stop during a restart's drain turns it into a stop, and takes nobody's answer away."""
    story = Story().up_to(Phase.READY)
    story.tell(Restart())

    assert story.tell(Stop()) == ()
    assert story.state.wanted is False


def test_start_while_stopping_flips_only_intent() -> None:
    """Start during a stop changes what happens after the exit, not the exit."""
    story = Story().up_to(Phase.READY)
    story.tell(Stop(), Drained(1))

    assert story.tell(Start()) == ()
    assert story.tell(Exited(1, "ended by SIGTERM, as asked")) == (Spawn(2),)


def test_restart_is_no_death() -> None:
    """A restart goes up again at once and counts as no failure."""
    story = Story().up_to(Phase.READY)
    story.tell(Restart(), Drained(1))

    assert story.tell(Exited(1, "ended by SIGTERM, as asked")) == (Spawn(2),)
    assert (story.state.deaths, story.state.departures[-1].expected) == ((), True)


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.LOADING, Phase.WARMING])
def test_stop_before_ready_does_not_drain(phase: Phase) -> None:
    """Before ready nobody is served, so a stop or a restart terminates at once."""
    for event in (Stop(), Restart()):
        story = Story().up_to(phase)

        assert story.tell(event) == (Terminate(1),)
        assert story.state.phase is Phase.STOPPING


def test_stop_calls_off_a_retry() -> None:
    """Stop during backoff means down, and time no longer matters."""
    story = Story().up_to(Phase.STARTING)
    story.tell(Exited(1, "exited with code 1"), Stop())

    assert (story.state.phase, story.state.wanted, story.state.deadline) == (Phase.DOWN, False, None)


def test_rewarm_stays_ready() -> None:
    """A rewarm leaves the service ready, and its success is the new warmth."""
    story = Story(Policy(warmup_enabled=False)).up_to(Phase.LOADING)
    story.tell(Loaded(1))

    assert story.tell(Rewarm(5)) == (Warm(1, (), 5),)
    assert story.state.phase is Phase.READY
    story.tell(WarmupEnded(1, Outcome.SUCCEEDED, prefixes=(PREFIX,), ticket=5))
    assert (story.state.warm, story.state.reason, story.state.warmup.prefixes) == (True, None, (PREFIX,))


def test_failed_rewarm_takes_nothing_away() -> None:
    """A rewarm that fails leaves a warm service warm."""
    story = Story().up_to(Phase.READY)
    story.tell(Rewarm(5), WarmupEnded(1, Outcome.FAILED, "no", ticket=5))

    assert (story.state.warm, story.state.rewarming, story.state.deadline) == (True, 0, None)


def test_rewarm_has_a_deadline() -> None:
    """A rewarm that takes too long is abandoned; its late answer is nobody's."""
    story = Story(Policy(warmup_timeout=9)).up_to(Phase.READY)
    story.tell(Rewarm(5))

    assert story.until_deadline() == (AbandonWarmup(1),)
    before = story.state
    story.tell(WarmupEnded(1, Outcome.ABANDONED, ticket=5))
    assert story.state == before


def test_one_rewarm_at_a_time() -> None:
    """A second rewarm is refused while one runs, and so is any when nothing is ready."""
    story = Story().up_to(Phase.READY)
    story.tell(Rewarm(5))

    assert isinstance(story.tell(Rewarm(6))[0], RefuseRewarm)
    assert isinstance(Story().up_to(Phase.LOADING).tell(Rewarm(1))[0], RefuseRewarm)


def test_stop_ends_a_rewarm() -> None:
    """A stop does not wait for a rewarm."""
    story = Story().up_to(Phase.READY)
    story.tell(Rewarm(5))

    assert story.tell(Stop()) == (AbandonWarmup(1), Drain(1))
