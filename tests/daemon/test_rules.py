"""What each course of events leads to, told as short stories of the pure machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stoker.daemon.effects import AbandonWarmup, Kill, LoadModel, Spawn, Terminate, Warm
from stoker.daemon.lifecycle import (
    DeadlinePassed,
    Drained,
    Exited,
    Greeted,
    LinkLost,
    LoadAdvanced,
    Loaded,
    LoadFailed,
    Outcome,
    Phase,
    Policy,
    Restart,
    Start,
    State,
    Stop,
    Unfit,
    WarmupEnded,
)
from stoker.daemon.machine import step
from tests.fakes.story import PREFIX, Story


def test_good_course() -> None:
    """Start, hello, load, warmup, ready: each step asks for the next."""
    story = Story()

    assert story.tell(Start()) == (Spawn(1),)
    assert story.tell(Greeted(1)) == (LoadModel(1),)
    assert story.tell(Loaded(1)) == (Warm(1),)
    assert story.tell(WarmupEnded(1, Outcome.SUCCEEDED, seconds=2.0, prefixes=(PREFIX,))) == ()
    assert (story.state.phase, story.state.warm, story.state.reason) == (Phase.READY, True, None)
    assert story.state.warmup.prefixes == (PREFIX,)


def test_warmup_timeout_is_ready_and_not_warm() -> None:
    """A warmup that takes too long is abandoned at its deadline; the service is ready and says why it is not warm."""
    story = Story(Policy(warmup_timeout=7.0)).up_to(Phase.WARMING)

    assert story.until_deadline() == (AbandonWarmup(1),)
    assert story.now == 7.0
    assert (story.state.phase, story.state.warm, story.state.reason) == (Phase.READY, False, "timeout")
    assert story.state.warmup.outcome is Outcome.ABANDONED


def test_abandoned_warmup_reports_what_it_has() -> None:
    """The late report of an abandoned warmup adds its prefixes and changes nothing else."""
    story = Story().up_to(Phase.WARMING)
    story.until_deadline()
    before = story.state

    story.tell(WarmupEnded(1, Outcome.ABANDONED, prefixes=(PREFIX,)))

    assert story.state.warmup.prefixes == (PREFIX,)
    assert (story.state.phase, story.state.warm, story.state.since) == (before.phase, False, before.since)


def test_failed_warmup_is_ready_and_not_warm() -> None:
    """A warmup that fails makes the service ready with the worker's reason."""
    story = Story().up_to(Phase.WARMING)

    story.tell(WarmupEnded(1, Outcome.FAILED, "the template refused"))

    assert (story.state.phase, story.state.warm) == (Phase.READY, False)
    assert story.state.reason == "the template refused"


@pytest.mark.parametrize(
    ("story", "reason"),
    [
        (Story(Policy(warmup_enabled=False)), "disabled"),
        (Story(state=State(cold=True)), "cold restart"),
        (Story(state=State(warmup_crashes=3)), "warmup crashed the worker"),
    ],
)
def test_skipped_warmup(story: Story, reason: str) -> None:
    """Disabled, a cold restart, or twice crashed: warmup is skipped, and the reason said."""
    state = story.state
    story.state = step(state, Restart(cold=state.cold), 0.0, story.policy)[0]
    if state.warmup_crashes:
        story.state = replace(story.state, warmup_crashes=state.warmup_crashes)

    assert story.tell(Greeted(1), Loaded(1)) == ()
    assert (story.state.phase, story.state.warm, story.state.reason) == (Phase.READY, False, reason)
    assert story.state.warmup.outcome is Outcome.DISABLED


def test_crashing_warmup_is_survived() -> None:
    """After workers that die in warmup comes one that restores nothing, and then one that warms nothing."""
    story = Story().up_to(Phase.WARMING)
    warmups = []
    for generation in (1, 2, 3):
        story.tell(Exited(generation, "crashed with SIGSEGV"))
        assert story.until_deadline() == (Spawn(generation + 1),)
        story.tell(Greeted(generation + 1))
        warmups.append(story.tell(Loaded(generation + 1)))

    assert warmups == [(Warm(2),), (Warm(3, restore=False),), ()]
    assert (story.state.phase, story.state.generation) == (Phase.READY, 4)
    assert story.state.reason == "warmup crashed the worker"


def test_cold_restart_is_cold_once() -> None:
    """Only the generation after `restart --cold` skips warmup."""
    story = Story().up_to(Phase.READY)
    story.tell(Restart(cold=True), Drained(1), Exited(1, "ended"), Greeted(2), Loaded(2))
    assert story.state.reason == "cold restart"

    story.tell(Restart(), Drained(2), Exited(2, "ended"), Greeted(3))

    assert story.tell(Loaded(3)) == (Warm(3),)


def test_mute_worker_is_killed() -> None:
    """Without hello in time the worker is killed, and its departure says why."""
    story = Story(Policy(hello_timeout=10)).up_to(Phase.STARTING)

    assert story.until_deadline() == (Kill(1),)
    assert story.state.phase is Phase.STARTING
    story.tell(Exited(1, "ended by SIGKILL, as asked"))
    assert story.state.departures[-1].cause == "said no hello within 10 s of its start"


def test_slow_load_with_progress_lives() -> None:
    """A load of ten times its stall budget lives as long as it reports progress."""
    story = Story(Policy(load_stall_timeout=60)).up_to(Phase.LOADING)

    for _ in range(12):
        assert story.tell(LoadAdvanced(1), after=50) == ()
        assert story.tell(DeadlinePassed()) == ()

    assert story.until_deadline() == (Kill(1),)


def test_fatal_refusal_fails_without_retry() -> None:
    """A model that can't be loaded leads to failed at once, with the worker's words."""
    story = Story().up_to(Phase.LOADING)

    assert story.tell(LoadFailed(1, "no config.json in /models/x", fatal=True)) == (Kill(1),)
    story.tell(Exited(1, "ended by SIGKILL, as asked"))

    assert (story.state.phase, story.state.reason) == (Phase.FAILED, "no config.json in /models/x")
    assert story.state.deadline is None


def test_lost_link_kills_and_is_not_counted_twice() -> None:
    """A worker whose connection breaks is killed; loss and exit are one death."""
    story = Story().up_to(Phase.READY)

    assert story.tell(LinkLost(1, "the worker closed its connection")) == (Kill(1),)
    story.tell(Exited(1, "ended by SIGKILL, as asked"))

    assert len(story.state.deaths) == 1
    assert story.state.departures[-1].cause == "the worker closed its connection"


def test_doomed_worker_is_not_heard() -> None:
    """A hello that crosses the KILL on its way changes nothing."""
    story = Story().up_to(Phase.STARTING)
    story.until_deadline()
    before = story.state

    assert story.tell(Greeted(1)) == ()
    assert story.state == before


def test_unkillable_is_told_again() -> None:
    """A process that outlives KILL is told again, and the phase waits for its exit."""
    story = Story().up_to(Phase.READY)
    story.tell(LinkLost(1, "lost"))

    assert story.until_deadline() == (Kill(1),)
    assert story.until_deadline() == (Kill(1),)
    assert story.state.phase is Phase.READY


def test_healthy_worker_restarts_at_once() -> None:
    """A worker that had been ready for long is replaced without a pause."""
    story = Story(Policy(healthy_after=30)).up_to(Phase.READY)

    assert story.tell(Exited(1, "killed by SIGKILL"), after=31) == (Spawn(2),)


def test_newborn_waits_longer_each_time() -> None:
    """Workers that die young wait twice as long each time, up to the cap, plus the jitter that luck gives."""
    policy = Policy(backoff_base=1, backoff_cap=5, backoff_jitter=0.5, restart_limit=100)
    story = Story(policy).up_to(Phase.STARTING)
    delays = []
    for _ in range(5):
        story.tell(Exited(story.state.generation, "exited with code 1", luck=0.5))
        delays.append((story.state.deadline or 0) - story.now)
        story.until_deadline()

    assert delays == [1.25, 2.5, 5.0, 6.25, 6.25]


def test_crash_loop_fails() -> None:
    """More deaths than the limit within the period lead to failed, and the reason counts them."""
    story = Story(Policy(restart_limit=3, restart_period=100)).up_to(Phase.STARTING)
    for _ in range(3):
        story.tell(Exited(story.state.generation, "exited with code 1"))
        story.until_deadline()

    story.tell(Exited(story.state.generation, "exited with code 1"))

    assert story.state.phase is Phase.FAILED
    assert story.state.reason == "died 4 times within 100 s; last: exited with code 1"


def test_rare_deaths_never_fail() -> None:
    """Deaths further apart than the period are forgotten."""
    story = Story(Policy(restart_limit=1, restart_period=100)).up_to(Phase.READY)
    for _ in range(10):
        story.tell(Exited(story.state.generation, "killed by SIGKILL"), after=101)
        generation = story.state.generation
        story.tell(Greeted(generation), Loaded(generation), WarmupEnded(generation, Outcome.SUCCEEDED))

    assert story.state.phase is Phase.READY


def test_start_clears_failed() -> None:
    """A person who starts a failed worker begins a new count."""
    story = Story(state=State(phase=Phase.FAILED, wanted=True, deaths=(1.0, 2.0), failures=9))

    assert story.tell(Start()) == (Spawn(1),)
    assert (story.state.deaths, story.state.failures) == ((), 0)


def test_departures_are_bounded() -> None:
    """A daemon that runs for years keeps the last departures only."""
    story = Story(Policy(departures_kept=4, healthy_after=0)).up_to(Phase.READY)
    for _ in range(20):
        story.tell(Exited(story.state.generation, "x"), after=1000)
        generation = story.state.generation
        story.tell(Greeted(generation), Loaded(generation), WarmupEnded(generation, Outcome.SUCCEEDED))

    assert [departure.generation for departure in story.state.departures] == [17, 18, 19, 20]


def test_exit_for_good_fails_without_retry() -> None:
    """A worker that exits saying that a restart won't help is not restarted."""
    story = Story().up_to(Phase.STARTING)

    story.tell(Exited(1, "exited with code 78", fatal=True))

    assert (story.state.phase, story.state.reason) == (Phase.FAILED, "exited with code 78")


@pytest.mark.parametrize("phase", [Phase.WARMING, Phase.READY])
def test_unfit_worker_is_killed(phase: Phase) -> None:
    """A worker that fell silent, or is poisoned, is killed; the cause of its death says which."""
    story = Story().up_to(phase)

    assert story.tell(Unfit(1, "silent: no token for 60 s in the middle of an answer")) == (Kill(1),)
    story.tell(Exited(1, "ended by SIGKILL, as asked"))
    assert story.state.departures[-1].cause == "silent: no token for 60 s in the middle of an answer"
    assert not story.state.departures[-1].expected


def test_unfit_worker_is_not_drained_any_longer() -> None:
    """A stop doesn't wait for the answers of a worker that gives none."""
    story = Story().up_to(Phase.READY)
    story.tell(Stop())

    assert story.tell(Unfit(1, "silent")) == (Terminate(1),)


def test_lack_of_descriptors_counts_towards_no_limit() -> None:
    """Spawns that failed for want of something shared are retried with growing pauses, and never end in `failed`."""
    story = Story(Policy(restart_limit=1, backoff_jitter=0.0, backoff_cap=8.0))
    story.tell(Start())
    pauses = []
    for generation in range(1, 31):
        story.tell(Exited(generation, "could not be started: Too many open files", transient=True))
        assert story.state.phase is Phase.BACKOFF
        pauses.append((story.state.deadline or 0) - story.now)
        story.until_deadline()

    assert pauses[:5] == [1, 2, 4, 8, 8]
    assert story.state.deaths == ()


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.LOADING])
def test_other_protocol_version_is_not_tried_again(phase: Phase) -> None:
    """A worker of another protocol version has a successor of the same one: the slot fails at once."""
    story = Story().up_to(phase)

    assert story.tell(LinkLost(1, "the daemon speaks protocol 1, the worker 2", fatal=True)) == (Kill(1),)
    story.tell(Exited(1, "ended by SIGKILL, as asked"))
    assert (story.state.phase, story.state.reason) == (Phase.FAILED, "the daemon speaks protocol 1, the worker 2")
