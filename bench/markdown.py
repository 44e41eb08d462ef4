"""A report as Markdown, to be pasted into docs/benchmarks.md."""

from __future__ import annotations

from stoker.bench.report import Report, Section
from stoker.bench.tables import facts, said


def markdown(report: Report) -> str:
    """The facts, then each table with its method and its checks."""
    parts = ["\n".join(f"- {line}" for line in [f"Command: `{report.command}`", *facts(report)])]
    for section in report.sections:
        checks = "\n".join(f"- {said(check)}" for check in section.checks)
        parts += [f"### {section.title}", section.method, _markdown_table(section), checks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_table(section: Section) -> str:
    rule = ["---", *["---:"] * (len(section.header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (section.header, rule, *section.rows))
