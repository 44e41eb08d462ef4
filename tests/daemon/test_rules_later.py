"""Warm after all: what idle time does for a warmup that was abandoned, told as short stories of the pure machine."""

from __future__ import annotations

import pytest
from msgspec.structs import replace as changed

from stoker.daemon.lifecycle import Outcome, Phase, WarmedLater, WarmupEnded
from stoker.ipc.messages import PrefixReport
from tests.fakes.story import PREFIX, Story

WHOLE = changed(PREFIX, tokens_warm=PREFIX.tokens)
LONG = changed(PREFIX, name="long", tokens=2000, tokens_warm=700)
LONG_AND_WHOLE = changed(LONG, tokens_warm=2000)


def _abandoned(*prefixes: PrefixReport) -> Story:
    story = Story().up_to(Phase.WARMING)
    story.until_deadline()
    story.tell(WarmupEnded(1, Outcome.ABANDONED, prefixes=prefixes))
    return story


def test_idle_time_makes_it_warm_after_all() -> None:
    """Once what an abandoned warmup had left is whole, the worker is warm; how its warmup ended stays history."""
    story = _abandoned(WHOLE, LONG)
    before = story.state

    assert story.tell(WarmedLater(1, (LONG_AND_WHOLE,))) == ()
    assert (story.state.warm, story.state.reason, story.state.since) == (True, None, before.since)
    assert story.state.warmup.outcome is Outcome.ABANDONED
    assert story.state.warmup.prefixes == (WHOLE, LONG_AND_WHOLE)


@pytest.mark.parametrize(
    ("missing", "warm"),
    [
        (changed(LONG, name="other"), False),
        (changed(LONG, name="faulty", tokens=0, tokens_warm=0, failed=True), False),
        (changed(LONG, name="nothing shared", tokens=0, tokens_warm=0), True),
        (changed(LONG, name="learned-1a2b3c4d", optional=True), True),
    ],
)
def test_warm_after_all_is_everything_configured(missing: PrefixReport, warm: bool) -> None:
    """While a configured prefix is not whole the worker is not called warm; one that was learned may be missing."""
    story = _abandoned(LONG, missing)

    story.tell(WarmedLater(1, (LONG_AND_WHOLE,)))

    assert story.state.warm is warm


def test_warm_when_the_late_report_says_so() -> None:
    """A warmup that was whole just when it was given up leaves a warm worker: nobody will tell later."""
    story = _abandoned(WHOLE, LONG_AND_WHOLE)

    assert (story.state.warm, story.state.reason) == (True, None)


@pytest.mark.parametrize(("other", "warm"), [(WHOLE, True), (changed(PREFIX, failed=True), False)])
def test_news_that_overtake_the_late_report_wait_for_it(other: PrefixReport, warm: bool) -> None:
    """What idle time finished may be told before the report of what it had left: only both together decide."""
    story = Story().up_to(Phase.WARMING)
    story.until_deadline()

    story.tell(WarmedLater(1, (LONG_AND_WHOLE,)))
    assert not story.state.warm
    story.tell(WarmupEnded(1, Outcome.ABANDONED, prefixes=(other, LONG)))

    assert story.state.warm is warm
    assert story.state.warmup.prefixes == (other, LONG_AND_WHOLE)


@pytest.mark.parametrize(("outcome", "warm"), [(Outcome.SUCCEEDED, True), (Outcome.FAILED, False)])
def test_a_renewed_prefix_changes_only_its_report(outcome: Outcome, warm: bool) -> None:
    """A prefix that a new day changed takes its older report's place; whether the worker is warm stays as it was."""
    story = Story().up_to(Phase.WARMING)
    story.tell(WarmupEnded(1, outcome, "why", prefixes=(WHOLE,)))

    story.tell(WarmedLater(1, (changed(WHOLE, seconds=9.0),)))

    assert story.state.warm is warm
    assert [prefix.seconds for prefix in story.state.warmup.prefixes] == [9.0]
