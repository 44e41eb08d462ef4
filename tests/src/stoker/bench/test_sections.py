"""The tables of `stoker bench`."""

from __future__ import annotations

from dataclasses import replace

from stoker.bench.measuring import Measured, Round
from stoker.bench.report import Report, Section
from stoker.bench.sections import sections
from tests.fakes.bench_trials import GOOD, ROUND, answer, prefix, restart


def tables(*rounds: Round) -> tuple[Section, Section]:
    first, speed = sections(Measured(rounds))
    return first, speed


def test_a_column_for_each_size() -> None:
    """Cold, warm and restored with their ratios, the tokens that were reused, and whether the text was the same."""
    first, _ = tables(ROUND, replace(ROUND, size=500))

    assert first.header == ("prompt", "2012 tokens", "2012 tokens")
    assert [row[:2] for row in first.rows] == [
        ("cold", "14.0 s"),
        ("warm", "260 ms (250-270)"),
        ("restored", "350 ms"),
        ("cold : warm", "53.8x (51.9-56.0)"),
        ("cold : restored", "40.0x"),
        ("reused", "2000 of 2000"),
        ("same text", "yes"),
    ]
    assert [one["size"] for one in first.data["results"]] == [2000, 500]
    assert all(len(row) == len(first.header) for row in first.rows)


def test_speeds_and_restarts() -> None:
    """Prefill and generation in tokens per second, and how soon the next worker is ready, warm."""
    _, speed = tables(ROUND)

    assert speed.rows == (
        ("prefill of 2012 tokens", "144 tokens/s"),
        ("generation", "50.0 tokens/s"),
        ("restart, until ready again", "1.50 s"),
        ("kill -9 of the worker, until ready again", "1.75 s"),
    )
    assert {name: figure["median"] for name, figure in speed.data.items()} == {
        "prefill_2000": 143.714,
        "generation": 50.0,
        "restart": 1.5,
        "kill": 1.75,
    }


def test_answers_too_short_have_no_speed() -> None:
    """A model that says one token and stops has no tokens per second, and the rest is measured all the same."""
    _, speed = tables(replace(ROUND, story=replace(answer(0.1), tokens=1)))

    assert ("generation", "the answers were too short") in speed.rows
    assert speed.data["generation"] is None


def test_what_must_hold_is_judged() -> None:
    """All is well, or the report is not correct: a restart that restored nothing, a text that is another."""
    computed = restart(report=prefix("learned-1a2b3c4d"))
    other = replace(GOOD, again=answer(0.28, 2000, "Lyon"))

    assert Report("", {}, tables(ROUND)).correct
    assert not Report("", {}, tables(ROUND, replace(ROUND, restart=computed))).correct
    assert not Report("", {}, tables(replace(ROUND, trial=other))).correct
    assert tables(replace(ROUND, trial=other))[0].rows[-1] == ("same text", "NO")
