"""Who succeeds whom, decided purely."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.daemon.succession import (
    EVENTS,
    MEANINGLESS,
    TABLE,
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
    SuccessionEvent,
    Swap,
    TrialFailed,
    TrialPassed,
    Wanted,
    Wish,
    decide,
    mermaid,
)

FIRST, SECOND = Wish(why="first"), Wish(why="second")
OTHERWISE = Wish(changed="otherwise")


def after(*events: SuccessionEvent) -> tuple[Succession, list[object]]:
    """The state after a story, and all effects of it."""
    state = Succession()
    done: list[object] = []
    for event in events:
        state, effects = decide(state, event)
        done += effects
    return state, done


def test_every_pair_is_decided() -> None:
    """Every pair of stage and event is either in the table or named as meaningless, and never both."""
    pairs = {(stage, event) for stage in Stage for event in EVENTS}

    assert pairs == TABLE.keys() | MEANINGLESS.keys()
    assert not TABLE.keys() & MEANINGLESS.keys()


@pytest.mark.parametrize("pair", sorted(MEANINGLESS, key=str), ids=lambda pair: f"{pair[0].value}-{pair[1].__name__}")
def test_meaningless_changes_nothing(pair: tuple[Stage, type[SuccessionEvent]]) -> None:
    """A meaningless event changes nothing and asks for nothing."""
    state = Succession(pair[0])
    examples = (HeirReady(), HeirGone("why"), CurrentGone(), OldGone(), TrialPassed(), TrialFailed("why"))
    event = next(event for event in examples if isinstance(event, pair[1]))

    assert decide(state, event) == (state, ())


def test_diagram_in_design_is_the_tables() -> None:
    """The diagram of replacement in docs/design.md is the one that the table draws."""
    design = Path(__file__).parents[2] / "docs" / "design.md"

    assert f"```mermaid\n{mermaid()}\n```" in design.read_text(encoding="utf-8")


def test_good_course_beside() -> None:
    """Room for two: an heir is raised, changes places when it is ready, and the old one goes."""
    state, done = after(Wanted(FIRST, beside=True), HeirReady(), OldGone())

    assert done == [Raise(FIRST), Swap("first")]
    assert (state.stage, state.failure) == (Stage.SETTLED, None)


def test_in_place_where_there_is_no_room() -> None:
    """Without room for two, the slot's own machine does it."""
    assert after(Wanted(FIRST, beside=False)) == (Succession(), [InPlace(FIRST)])


def test_back_to_what_served() -> None:
    """A worker made otherwise, in place, that comes to nothing is followed by one as before; the failure is told."""
    wanted = Wanted(OTHERWISE, beside=False, proven=True)
    state, done = after(wanted, TrialFailed("no such model"))

    assert done == [InPlace(OTHERWISE), GoBack()]
    assert (state.stage, state.failure) == (Stage.SETTLED, "no such model")
    assert after(wanted, TrialPassed()) == (Succession(), [InPlace(OTHERWISE)])


def test_wish_during_a_trial() -> None:
    """Another wish meanwhile is tried in the same place, and what there is to go back to stays."""
    wanted = Wanted(OTHERWISE, beside=False, proven=True)
    _, done = after(wanted, Wanted(SECOND, beside=False), TrialFailed("no such model"))

    assert done == [InPlace(OTHERWISE), InPlace(SECOND), GoBack()]


@pytest.mark.parametrize(("wish", "proven"), [(Wish(changed="otherwise"), False), (Wish(), True)])
def test_nothing_to_go_back_to(wish: Wish, proven: bool) -> None:
    """Where no worker was ever ready, or the new one is made like the old one, what fails has failed."""
    assert after(Wanted(wish, beside=False, proven=proven), TrialFailed("no")) == (Succession(), [InPlace(wish)])


def test_heir_that_fails_changes_nothing() -> None:
    """An heir that does not become ready is one attempt; the failure is told until the next replacement begins."""
    state, done = after(Wanted(FIRST, beside=True), HeirGone("no such model"))
    assert (state.stage, state.failure, done) == (Stage.SETTLED, "no such model", [Raise(FIRST)])

    assert decide(state, Wanted(SECOND, beside=True))[0].failure is None


def test_heir_of_the_dead() -> None:
    """If the current worker dies while an heir is coming, the heir takes its place as it is."""
    state, done = after(Wanted(FIRST, beside=True), CurrentGone())

    assert done == [Raise(FIRST), Promote()]
    assert state.stage is Stage.SETTLED


def test_heir_of_the_dead_that_is_made_otherwise() -> None:
    """It is on trial in the dead one's place: if it comes to nothing, one is made as the dead one was."""
    state, done = after(Wanted(OTHERWISE, beside=True), CurrentGone(), TrialFailed("no such model"))

    assert done == [Raise(OTHERWISE), Promote(), GoBack()]
    assert (state.stage, state.failure) == (Stage.SETTLED, "no such model")


def test_newer_wish_supersedes_the_heir() -> None:
    """An heir of what is not wanted any more is ended before the next one is raised; the last wish counts."""
    state, done = after(Wanted(FIRST, beside=True), Wanted(FIRST, beside=True), Wanted(SECOND, beside=True))
    assert (state.stage, state.wish) == (Stage.DISMISSING, SECOND)
    assert done == [Raise(FIRST), Dismiss("another replacement was wanted")]

    assert decide(state, HeirGone("ended"))[1] == (AskAgain(SECOND),)


def test_wish_while_the_old_one_retires_waits() -> None:
    """There are never three workers: a wish that comes while the old one drains is put again when it has gone."""
    state, done = after(Wanted(FIRST, beside=True), HeirReady(), Wanted(SECOND, beside=True), OldGone())

    assert done == [Raise(FIRST), Swap("first"), AskAgain(SECOND)]
    assert (state.stage, state.wish) == (Stage.SETTLED, None)


WHATEVER = st.sampled_from(
    [
        Wanted(FIRST, beside=True),
        Wanted(SECOND, beside=False),
        Wanted(OTHERWISE, beside=False, proven=True),
        Wanted(OTHERWISE, beside=True, proven=True),
        HeirReady(),
        HeirGone("it died"),
        CurrentGone(),
        OldGone(),
        TrialPassed(),
        TrialFailed("it died"),
    ]
)


@given(st.lists(WHATEVER, max_size=60))
def test_never_two_heirs(events: list[SuccessionEvent]) -> None:
    """Whatever happens in whatever order, there is one heir or one retiring worker at most beside the current one."""
    beside = 0
    state = Succession()
    for event in events:
        if (state.stage, type(event)) in TABLE:
            beside -= isinstance(event, HeirGone | OldGone)
        state, effects = decide(state, event)
        for effect in effects:
            beside += isinstance(effect, Raise)
            beside -= isinstance(effect, Promote)
        assert beside == (state.stage not in {Stage.SETTLED, Stage.TRYING})
