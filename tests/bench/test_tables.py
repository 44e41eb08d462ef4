"""The tables for people."""

from __future__ import annotations

import io

from rich.console import Console

from bench.report import Check, Json, Report, Section
from bench.tables import markdown, show


def report(*, quiet: bool = True) -> Report:
    machine: Json = {
        "cpu": "A CPU",
        "cores": 2,
        "memory_gib": 24,
        "system": "Linux x86_64",
        "load_before": "0.10 0.20 0.30",
        "busy_before_percent": 3.0,
        "quiet": quiet,
        "openblas": "not found",
    }
    checks = (Check("warm text is the cold text", "differs", ok=False), Check("30x", "29x", ok=False, target=True))
    section = Section("a", "A title", "A method.", ("what", "[s]"), (("cold", "1.98 s"),), {}, checks)
    return Report("make bench", {"machine": machine, "versions": {"stoker": "0.1.0"}}, [section])


def test_markdown_can_be_pasted() -> None:
    """The Markdown says command, machine and versions, then each table with its method and its checks."""
    text = markdown(report())

    assert text.startswith("- Command: `make bench`\n- A CPU, 2 cores usable, 24 GiB, Linux x86_64\n")
    assert "- stoker 0.1.0\n" in text
    assert "### A title\n\nA method.\n\n| what | [s] |\n| --- | ---: |\n| cold | 1.98 s |\n" in text
    assert "- WRONG: warm text is the cold text: differs\n- not reached: 30x: 29x\n" in text


def test_terminal_shows_the_same() -> None:
    """The terminal shows the facts, the cells, brackets included, and the checks."""
    out = io.StringIO()
    show(report(), Console(file=out, width=100))

    for part in ("2 cores usable", "A title", "[s]", "1.98 s", "WRONG: warm text", "not reached: 30x"):
        assert part in out.getvalue()


def test_busy_machine_is_marked() -> None:
    """Figures from a machine that was busy before the start say so on top."""
    assert "NOT QUIET" in markdown(report(quiet=False))
    assert "NOT QUIET" not in markdown(report())
