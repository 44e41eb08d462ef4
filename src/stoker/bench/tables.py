"""A report as tables on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .report import Check, Report, Section


def show(report: Report, console: Console, *, brief: bool = False) -> None:
    """Print it; `brief` only counts the checks that hold."""
    for line in facts(report):
        console.print(escape(line), soft_wrap=True, highlight=False)
    for section in report.sections:
        console.print()
        console.print(_table(section))
        console.print(f"[dim]{escape(section.method)}[/]", highlight=False)
        held = sum(check.ok for check in section.checks)
        if brief and held:
            console.print(f"[green]ok: {held} of {len(section.checks)} checks hold[/]", highlight=False)
        for check in (each for each in section.checks if not (brief and each.ok)):
            colour = "green" if check.ok else "yellow" if check.target else "red"
            console.print(f"[{colour}]{escape(said(check))}[/]", soft_wrap=True, highlight=False)


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
    return [*lines, *report.facts.get("notes", ())]


def _table(section: Section) -> Table:
    table = Table(title=section.title, title_justify="left", title_style="bold")
    for index, name in enumerate(section.header):
        table.add_column(escape(name), justify="left" if index == 0 else "right")
    for row in section.rows:
        table.add_row(*map(escape, row))
    return table


def said(check: Check) -> str:
    """A check in one line."""
    word = "ok" if check.ok else "not reached" if check.target else "WRONG"
    return f"{word}: {check.promise}: {check.found}"
