"""A report as tables: on a terminal, and as Markdown to be pasted into docs/benchmarks.md."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.report import Check, Report, Section


def show(report: Report, console: Console) -> None:
    """Print it."""
    for line in facts(report):
        console.print(escape(line), soft_wrap=True, highlight=False)
    for section in report.sections:
        console.print()
        console.print(_table(section))
        console.print(f"[dim]{escape(section.method)}[/]", highlight=False)
        for check in section.checks:
            colour = "green" if check.ok else "yellow" if check.target else "red"
            console.print(f"[{colour}]{escape(_said(check))}[/]", soft_wrap=True, highlight=False)


def markdown(report: Report) -> str:
    """The same, to be pasted."""
    parts = ["\n".join(f"- {line}" for line in [f"Command: `{report.command}`", *facts(report)])]
    for section in report.sections:
        checks = "\n".join(f"- {_said(check)}" for check in section.checks)
        parts += [f"### {section.title}", section.method, _markdown_table(section), checks]
    return "\n\n".join(part for part in parts if part) + "\n"


def facts(report: Report) -> list[str]:
    """On what it was measured, and how quiet that was."""
    machine, versions = report.facts["machine"], report.facts["versions"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores usable, {machine['memory_gib']} GiB, {machine['system']}",
        f"Before: load {machine['load_before']}, {machine['busy_before_percent']:.0f} % of the CPU busy"
        + ("" if machine["quiet"] else " — NOT QUIET: take ratios, not absolute times"),
        f"OpenBLAS: {machine['openblas']}",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
    ]
    if report.facts.get("quick"):
        lines.append("--quick: too few repeats to be quoted")
    return lines


def _table(section: Section) -> Table:
    table = Table(title=section.title, title_justify="left", title_style="bold")
    for index, name in enumerate(section.header):
        table.add_column(escape(name), justify="left" if index == 0 else "right")
    for row in section.rows:
        table.add_row(*map(escape, row))
    return table


def _markdown_table(section: Section) -> str:
    rule = ["---", *["---:"] * (len(section.header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (section.header, rule, *section.rows))


def _said(check: Check) -> str:
    word = "ok" if check.ok else "not reached" if check.target else "WRONG"
    return f"{word}: {check.promise}: {check.found}"
