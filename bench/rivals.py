"""Two servers of one model, asked the same in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from bench import peer
from stoker.bench.report import Ratio, Series

T = TypeVar("T")

STOKER = "stoker"


@dataclass(frozen=True, slots=True)
class Server:
    """One that is asked.

    Attributes:
        name: In tables.
        url: `http://HOST:PORT`.
        model: What requests name.
    """

    name: str
    url: str
    model: str


def rivals(stoker_url: str, peer_url: str | None) -> tuple[Server, ...]:
    """Stoker, and the peer if it runs."""
    stoker = Server(STOKER, stoker_url, "default")
    return (stoker, *([Server(peer.NAME, peer_url, peer.MODEL)] if peer_url else []))


def in_turns(servers: Iterable[Server], repeats: int, trial: Callable[[Server, int], T]) -> dict[str, list[T]]:
    """Each server's trials, by its name: they take turns, so that a busy spell of the machine hits both."""
    made: dict[str, list[T]] = {}
    for index in range(repeats):
        for server in servers:
            made.setdefault(server.name, []).append(trial(server, index))
    return made


def more(series: dict[str, Series]) -> Ratio | None:
    """How many times more Stoker has than the peer; None without a peer."""
    return Ratio.of(series[STOKER], series[peer.NAME]) if peer.NAME in series else None


def sooner(series: dict[str, Series]) -> Ratio | None:
    """How many times sooner Stoker is than the peer; None without a peer."""
    return Ratio.of(series[peer.NAME], series[STOKER]) if peer.NAME in series else None


def cells(series: dict[str, Series], ratio: Ratio | None) -> Iterator[str]:
    """A table's: Stoker's, the peer's, how they compare."""
    yield str(series[STOKER])
    yield str(series[peer.NAME]) if peer.NAME in series else "-"
    yield str(ratio) if ratio else "-"


HEADER = (STOKER, peer.NAME, "ratio")
"""Of these cells."""
