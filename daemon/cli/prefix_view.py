"""Warm and learned prefixes as a table."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...ipc.control_messages import PrefixListing
from ...ipc.messages import KnownPrefix
from .words import age, printable

LEARNING = (
    "No prefix is learned yet. Stoker counts what requests begin with: system prompt, tools, template arguments. "
    "What it saw twice it remembers, with its text, on this machine; the most valuable are warmed at each start."
)

LEARNED_NAME = len("learned-1a2b3c4d")
"""Columns: what a narrow terminal lacks is not taken from these names, by which prefixes are pinned and forgotten."""


def shown(listing: PrefixListing, now: float | None = None) -> RenderableType:
    """The listing, what learning is where nothing was learned, and notes.

    Args:
        listing: What the daemon said.
        now: Unix seconds; None for the time.
    """
    return Group(*_parts(listing, time.time() if now is None else now))


def _parts(listing: PrefixListing, now: float) -> Iterator[RenderableType]:
    if listing.prefixes:
        yield _table(listing, now)
    if all(prefix.origin == "configured" for prefix in listing.prefixes):
        yield Text(LEARNING, style="dim")
    for note in listing.notes:
        yield Text(f"note: {printable(note)}", style="yellow")


def _table(listing: PrefixListing, now: float) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("name", overflow="fold", min_width=LEARNED_NAME)
    table.add_column("origin", no_wrap=True)
    for heading in ("tokens", "warm"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("pinned", no_wrap=True)
    table.add_column("seen", justify="right", no_wrap=True)
    table.add_column("saved", justify="right", no_wrap=True)
    table.add_column("last used", no_wrap=True)
    for prefix in listing.prefixes:
        table.add_row(*map(Text, _cells(prefix, now)))
    return table


def _cells(prefix: KnownPrefix, now: float) -> Iterator[str]:
    yield printable(prefix.name)
    yield prefix.origin
    yield f"{prefix.tokens:,}"
    yield f"{prefix.tokens_warm:,}"
    if prefix.origin == "configured":  # it is warmed at each start, and not counted
        yield from ("", "", "", "")
        return
    yield "yes" if prefix.pinned else "no"
    yield f"{prefix.seen:,}"
    yield f"{prefix.tokens_saved:,}"
    yield "" if prefix.last_used is None else age(now - prefix.last_used)
