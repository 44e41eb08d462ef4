"""Which questions are asked for the comparison with mlx-lm, and what is concluded."""

from __future__ import annotations

from bench.equality import WAVE, Comparison, Plan, compared, questions, waves


def test_questions_are_random_and_repeatable() -> None:
    """The same seed gives the same questions, all different; another seed gives others."""
    first = questions(Plan(20))

    assert first == questions(Plan(20))
    assert len({each["messages"][-1]["content"] for each in first}) == 20
    assert questions(Plan(20, seed=2))[0] != first[0]
    assert {len(each["messages"]) for each in first} == {1, 2}


def test_every_question_is_in_one_wave() -> None:
    """Each is asked once, in groups of different sizes, none too large."""
    groups = list(waves(Plan(100)))

    assert sorted(index for group in groups for index in group) == list(range(100))
    assert len({len(group) for group in groups}) > 3
    assert max(map(len, groups)) <= WAVE


def test_one_different_answer_is_wrong() -> None:
    """A single text that is not mlx-lm's fails the run, and is shown whole in the JSON."""
    section = compared([Comparison("a", "x", "x"), Comparison("b", "x", "y")])

    assert [(check.ok, check.target) for check in section.checks] == [(False, False)]
    assert section.data["different"] == [{"prompt": "b", "expected": "x", "found": "y"}]
    assert compared([Comparison("a", "x", "x")]).checks[0].ok
