"""Guesses of how long the rest will take."""

from __future__ import annotations

import pytest

from stoker.bench.pace import BESIDES, GROWTH, in_words, seconds_left


def test_each_trial_left_has_two_prefills() -> None:
    """Those of a size that was measured take as long as measured; of the first one a prefill is over."""
    assert seconds_left({500: 2.0}, [500, 500]) == 3 * 2.0 + 2 * BESIDES


def test_other_sizes_are_scaled_from_the_nearest() -> None:
    """A prompt four times as long takes more than four times as long, and what is known better is used."""
    long = 2.0 * 4**GROWTH

    assert seconds_left({500: 2.0}, [500, 2000]) == pytest.approx(2.0 + 2 * long + 2 * BESIDES)
    assert seconds_left({500: 2.0, 2000: 30.0}, [2000]) == 30.0 + BESIDES


@pytest.mark.parametrize(("seconds", "words"), [(12, "about 10 s"), (94, "about 90 s"), (170, "about 3 min")])
def test_a_guess_has_few_digits(seconds: float, words: str) -> None:
    """Nobody should take it for more than it is."""
    assert in_words(seconds) == words
