"""The tables for people."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from stoker.bench.report import Check, Report
from stoker.bench.tables import show
from tests.fakes.bench_trials import report


def shown(one: Report, *, brief: bool = False) -> str:
    out = io.StringIO()
    show(one, Console(file=out, width=100), brief=brief)
    return out.getvalue()


def test_a_terminal_shows_everything() -> None:
    """The facts, the cells, brackets included, and the checks."""
    for part in ("2 cores usable", "A title", "[s]", "1.98 s", "WRONG: warm text", "not reached: 30x"):
        assert part in shown(report())


def test_a_busy_machine_is_marked() -> None:
    """Figures from a machine that was busy before the start say so on top."""
    assert "NOT QUIET" in shown(report(quiet=False)).split("A title")[0]
    assert "NOT QUIET" not in shown(report())


def test_brief_means_that_what_holds_is_counted() -> None:
    """Checks that hold are a number, those that don't are told as ever."""
    one = report()
    section = replace(one.sections[0], checks=(*one.sections[0].checks, Check("30 ms", "3 ms", ok=True)))
    text = shown(replace(one, sections=[section]), brief=True)

    assert "ok: 1 of 3 checks hold" in text
    assert "30 ms" not in text
    assert "WRONG: warm text" in text


def test_notes_are_on_top() -> None:
    """What else bears upon the figures is said before them."""
    assert "something runs beside it" in shown(report(notes=["something runs beside it"])).split("A title")[0]
