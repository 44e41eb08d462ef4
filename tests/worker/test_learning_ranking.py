"""What learned prefixes are worth, and which of them are kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.worker import learning
from stoker.worker.learning import HALF_LIFE, MOST_LEARNED, MOST_SIGHTINGS, Ledger, key_of, opening_of
from tests.fakes.requests_seen import DAY, NOW, chat, observe, systems


def test_longer_and_more_often_is_worth_more() -> None:
    """Of prefixes used as recently, the one that saves most tokens comes first."""
    ledger = Ledger()
    observe(ledger, chat("1000 rare"), times=2)
    observe(ledger, chat("100 frequent"), times=30)
    observe(ledger, chat("900 rare"), times=2)

    assert systems(ledger) == ["100 frequent", "1000 rare", "900 rare"]
    assert systems(ledger, count=1) == ["100 frequent"]


def test_use_counts_half_after_the_half_life() -> None:
    """Three days halve what a use is worth; so today's two uses beat last week's five."""
    ledger = Ledger()
    observe(ledger, chat("500 old"), times=5)
    (old,) = ledger.listing(NOW)
    observe(ledger, chat("500 new"), times=2, at=NOW + 7 * DAY)

    assert old.value(NOW + HALF_LIFE) == pytest.approx(old.value(NOW) / 2)
    assert systems(ledger, NOW + 7 * DAY) == ["500 new", "500 old"]


def test_clock_set_back_is_survived() -> None:
    """What was used in the future is worth what it would be now, and no more."""
    ledger = Ledger()
    observe(ledger, chat("500 future"), at=NOW + 900 * DAY)
    ledger = Ledger(ledger.record(), NOW)
    observe(ledger, chat("500 now"), times=3)

    assert systems(ledger) == ["500 now", "500 future"]
    assert ledger.listing(NOW)[1].last == NOW


def test_least_valuable_goes_first() -> None:
    """Of more candidates than are kept, the newcomer and the most valuable stay."""
    ledger = Ledger()
    for number in range(MOST_LEARNED):
        observe(ledger, chat(f"{1000 + number} x"))
    observe(ledger, chat("64 newcomer"))

    assert len(ledger.listing(NOW)) == MOST_LEARNED
    assert "64 newcomer" in systems(ledger)
    assert "1000 x" not in systems(ledger)


def test_texts_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """All openings' texts together stay under their limit, at the cost of the least valuable."""
    monkeypatch.setattr(learning, "MOST_BYTES", 10_000)
    ledger = Ledger()
    for number in range(8):
        observe(ledger, chat(f"{1000 + number} {'x' * 2000}"))
    kept = ledger.listing(NOW)

    assert [entry.tokens for entry in kept] == [1007, 1006, 1005, 1004]
    assert sum(len(entry.opening.canonical()) for entry in kept) <= 10_000


def test_flood_of_single_chats_drops_nothing_learned() -> None:
    """Chats seen once have places of their own, and are learned from there even when all others are taken."""
    ledger = Ledger()
    for number in range(MOST_LEARNED):
        observe(ledger, chat(f"{1000 + number} x"))
    for number in range(MOST_SIGHTINGS + 50):
        observe(ledger, chat(f"500 once {number}"), times=1)

    assert len(ledger.listing(NOW)) == MOST_LEARNED
    assert len(ledger.record().sightings) == MOST_SIGHTINGS
    observe(ledger, chat(f"500 once {MOST_SIGHTINGS}"), times=1)
    assert f"500 once {MOST_SIGHTINGS}" in systems(ledger)


def test_configured_prefixes_are_left_out() -> None:
    """What is warmed anyway doesn't take a learned prefix's place."""
    ledger = Ledger()
    observe(ledger, chat("900 configured"), chat("500 other"))
    configured = opening_of(chat("900 configured"))
    assert configured is not None

    assert [entry.tokens for entry in ledger.best(1, NOW, besides={key_of(configured)})] == [500]


@settings(max_examples=50, deadline=None)
@given(ages=st.lists(st.floats(0, 1000 * DAY), min_size=2, max_size=6), later=st.floats(0, 100 * DAY))
def test_ranks_do_not_change_by_waiting(ages: list[float], later: float) -> None:
    """Time alone lets all fade alike: which prefix is worth more than which is decided by use."""
    ledger = Ledger()
    for number, age in enumerate(sorted(ages, reverse=True)):
        observe(ledger, chat(f"{100 + number} x"), at=NOW - age)
    values = [entry.value(NOW + later) for entry in ledger.listing(NOW)]

    assert values == sorted(values, reverse=True)
