"""The tables to be pasted."""

from __future__ import annotations

from bench.markdown import markdown
from tests.fakes.bench_trials import report


def test_markdown_can_be_pasted() -> None:
    """The Markdown says command, machine and versions, then each table with its method and its checks."""
    text = markdown(report())

    assert text.startswith("- Command: `make bench`\n- A CPU, 2 cores usable, 24 GiB, Linux x86_64\n")
    assert "- stoker 0.1.0\n" in text
    assert "### A title\n\nA method.\n\n| what | [s] |\n| --- | ---: |\n| cold | 1.98 s |\n" in text
    assert "- WRONG: warm text is the cold text: differs\n- not reached: 30x: 29x\n" in text
