"""Two servers of one model, asked the same in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from bench import peer
from stoker.bench.report import Ratio, Series


class Named(Protocol):
    """Whatever takes turns."""

    @property
    def name(self) -> str:
        """In tables."""


T = TypeVar("T")
N = TypeVar("N", bound=Named)

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


def in_turns(servers: Iterable[N], repeats: int, trial: Callable[[N, int], T]) -> dict[str, list[T]]:
    """Each server's trials, by its name: they take turns, so that a busy spell of the machine hits both."""
    made: dict[str, list[T]] = {}
    for index in range(repeats):
        for server in servers:
            made.setdefault(server.name, []).append(trial(server, index))
    return made


def more(series: dict[str, Series], than: str = peer.NAME) -> Ratio | None:
    """How many times more Stoker has than another; None where that wasn't measured."""
    return Ratio.of(series[STOKER], series[than]) if than in series else None


def sooner(series: dict[str, Series], than: str = peer.NAME) -> Ratio | None:
    """How many times sooner Stoker is than another; None where that wasn't measured."""
    return Ratio.of(series[than], series[STOKER]) if than in series else None


def cells(series: dict[str, Series], ratio: Ratio | None) -> Iterator[str]:
    """A table's: Stoker's, the peer's, how they compare."""
    yield str(series[STOKER])
    yield from compared(series, peer.NAME, ratio)


HEADER = (STOKER, peer.NAME, "ratio")
"""Of these cells."""


def compared(series: dict[str, Series], name: str, ratio: Ratio | None) -> tuple[str, str]:
    """Two cells: another one's, and how Stoker compares with it; dashes if it wasn't measured."""
    return str(series[name]) if name in series else "-", str(ratio) if ratio else "-"
