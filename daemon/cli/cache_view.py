"""Prefixes on disk as a table."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...ipc.control_messages import StoredListing
from ...ipc.messages import StoredPrefix
from .words import age, printable, size

NOTHING = "nothing is stored yet: a prefix is saved as soon as it is warm"


def shown(listing: StoredListing, now: float | None = None) -> Group:
    """What is on disk, and what isn't used.

    Args:
        listing: What the daemon said.
        now: Unix seconds, from which ages are counted.
    """
    return Group(*_parts(listing, time.time() if now is None else now))


def _parts(listing: StoredListing, now: float) -> Iterator[RenderableType]:
    if listing.prefixes:
        yield _table(listing, now)
    else:
        yield Text(NOTHING, style="dim")
    for mark in listing.set_aside:
        called = printable(mark.name or mark.key[:12])
        what = "was damaged, and deleted" if mark.kind == "damaged" else "is set aside"
        yield Text(f"{called} {what}, {age(now - mark.at)}: {printable(mark.reason)}", style="yellow")
    used = f"{size(listing.bytes)} of {size(listing.budget_bytes)}"
    yield Text(f"{used} in {printable(listing.folder)}", style="dim")


def _table(listing: StoredListing, now: float) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("name", overflow="fold", min_width=16)
    for heading in ("tokens", "size", "age", "last used"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("usable", overflow="fold")
    for prefix in listing.prefixes:
        table.add_row(*map(Text, _cells(prefix, now)))
    return table


def _cells(prefix: StoredPrefix, now: float) -> Iterator[str]:
    yield printable(prefix.name or prefix.key[:12])
    yield f"{prefix.tokens:,}" if prefix.tokens else "unknown"
    yield size(prefix.bytes)
    yield age(now - prefix.created)
    yield age(now - prefix.used) if prefix.uses else "never"
    yield printable(_usable(prefix))


def _usable(prefix: StoredPrefix) -> str:
    if prefix.set_aside:
        return f"set aside: {prefix.set_aside}"
    if prefix.foreign is None:
        return "yes"
    return f"no, {prefix.foreign}" + (f" ({prefix.model})" if prefix.foreign == "another model" else "")
