"""The status as a table."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import datetime
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ...ipc.control_messages import StatusReport
from ..checkup.running import speeds
from .words import activity, duration, prefix, printable, size, warmth

RESTARTS_SHOWN = 5
WIDE = 160
"""Columns where there is no terminal to ask."""

STYLES = {"ready": "bold green", "failed": "bold red", "backoff": "yellow"}


def console() -> Console:
    """Standard output; without colours, and wide, where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)


def table(report: StatusReport, elapsed: float = 0.0) -> Table:
    """The status as two columns.

    Args:
        report: What the daemon said.
        elapsed: Seconds since then, added to running times.
    """
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for label, value, style in _rows(report, elapsed):
        grid.add_row(label, Text(printable(value), style=style))
    return grid


def _rows(report: StatusReport, elapsed: float) -> Iterator[tuple[str, str, str]]:
    yield "phase", _phase(report), STYLES.get(report.phase, "")
    yield "generation", str(report.generation), ""
    if report.successor:
        coming = report.successor
        why = f": {coming.reason}" if coming.reason else ""
        yield "successor", f"generation {coming.generation}, {coming.phase}{why}", ""
    yield "model", f"{report.model or 'not loaded'} ({report.model_path})", ""
    yield "requests to", f"{report.http}/v1", ""
    if report.worker:
        worker = report.worker
        yield "worker", f"pid {worker.pid}, up {duration(worker.uptime + elapsed)}, {size(worker.memory_bytes)}", ""
    yield "daemon", f"pid {report.pid}, up {duration(report.uptime + elapsed)}, version {report.version}", ""
    yield from _warmup(report)
    yield from _work(report)
    yield from _past(report)
    for name, path in report.logs.items():
        yield f"log, {name}", path, ""


def _phase(report: StatusReport) -> str:
    if report.ready:
        return f"ready, {'warm' if report.warm else warmth(report)}"
    return f"failed: {report.reason}" if report.phase == "failed" else activity(report)


def _warmup(report: StatusReport) -> Iterator[tuple[str, str, str]]:
    if report.warmup.outcome:
        yield "warmup", f"{report.warmup.outcome}, {report.warmup.seconds:.2f} s", ""
    for one in report.prefixes or report.warmup.prefixes:
        yield "  prefix", prefix(one), ""
    if report.cache:
        cache = report.cache
        used = f"{size(cache.bytes)} of {size(cache.limit_bytes)}"
        traffic = f"{cache.hits:,} hits, {cache.misses:,} misses, {cache.evictions:,} evictions"
        yield "cache", f"{cache.entries} entries, {cache.pinned} pinned, {used}; {traffic}", ""
    yield from _on_disk(report)
    if report.background:
        yield "", f"warming {report.background} in background", ""


def _on_disk(report: StatusReport) -> Iterator[tuple[str, str, str]]:
    store = report.store
    if store:
        used = f"{size(store.bytes)} of {size(store.budget_bytes)}"
        yield "disk", f"{store.entries} prefixes, {used}; {store.saved} saved, {store.restored} restored", ""
        for note in store.notes:
            yield "", note, "yellow"


def _work(report: StatusReport) -> Iterator[tuple[str, str, str]]:
    counts = report.requests
    yield "requests", ", ".join(f"{getattr(counts, name):,} {name}" for name in counts.__struct_fields__), ""
    yield "tokens/s", speeds(report.rates) or "none measured since this worker's start", ""


def _past(report: StatusReport) -> Iterator[tuple[str, str, str]]:
    if report.restarts:
        yield "restarts", str(len(report.restarts)), ""
    for one in report.restarts[-RESTARTS_SHOWN:]:
        at = datetime.fromtimestamp(one.at).astimezone()
        yield "", f"{at:%Y-%m-%d %H:%M:%S}  generation {one.generation}: {one.cause}", ""
    if report.reload:
        refused = report.reload.outcome == "refused"
        yield "reload", f"{report.reload.outcome}: {report.reload.message}", "red" if refused else ""
    for note in report.notes:
        yield "note", note, "yellow"
    if not report.ready:
        for line in report.last_words:
            yield "last words" if line is report.last_words[0] else "", line, "red"


class LiveStatus:
    """A table on the terminal that is replaced by the next one. Running times go on between two of them."""

    def __init__(self) -> None:
        self._report: StatusReport | None = None
        self._at = 0.0
        self._live = Live(get_renderable=self._render, console=console(), refresh_per_second=2)

    def show(self, report: StatusReport) -> None:
        """Show this one from now on."""
        self._report, self._at = report, time.monotonic()
        self._live.refresh()

    def _render(self) -> Table | Group:
        return table(self._report, time.monotonic() - self._at) if self._report else Group()

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)
