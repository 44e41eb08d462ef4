"""The texts to ask with."""

from __future__ import annotations

from itertools import combinations

from stoker.bench.prompts import USERS, system_prompt


def test_system_prompt_is_repeatable() -> None:
    """The same name gives the same text, in each run."""
    assert system_prompt(500, "a") == system_prompt(500, "a")


def test_another_name_differs_from_the_beginning() -> None:
    """Two prompts share no beginning, so that the second one is cold."""
    first, second = (system_prompt(500, name) for name in "ab")

    assert first[:8] != second[:8]
    assert first.split()[0] != second.split()[0]


def test_length_follows_the_tokens_wanted() -> None:
    """Four times the tokens are about four times the words."""
    ratio = len(system_prompt(2000, "a").split()) / len(system_prompt(500, "a").split())

    assert 3.7 < ratio < 4.3


def test_user_texts_begin_differently() -> None:
    """No two user texts share their first letter: they would share more than the system prompt."""
    assert all(first[0] != second[0] for first, second in combinations(USERS, 2))
