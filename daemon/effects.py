"""What the machine asks to be done. Data only; `supervisor` carries it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ..ipc.messages import WarmPrefix


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process; ends in exactly one `Exited`."""

    generation: int


@dataclass(frozen=True, slots=True)
class LoadModel:
    """Send `load`."""

    generation: int


@dataclass(frozen=True, slots=True)
class Warm:
    """Send `warm`; no prefixes means the configured ones. `restore`: they may be read from disk."""

    generation: int
    prefixes: tuple[WarmPrefix, ...] = ()
    ticket: int = 0
    restore: bool = True


@dataclass(frozen=True, slots=True)
class AbandonWarmup:
    """Cancel the running warmup; what it has computed stays."""

    generation: int


@dataclass(frozen=True, slots=True)
class RefuseRewarm:
    """Tell whoever holds the ticket that there will be no rewarm."""

    ticket: int
    why: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Give the worker no new request, and say `Drained` when the running ones have ended."""

    generation: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the process group to end (TERM, then CONT so that a stopped one hears it)."""

    generation: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End the process group (KILL)."""

    generation: int


Effect: TypeAlias = Spawn | LoadModel | Warm | AbandonWarmup | RefuseRewarm | Drain | Terminate | Kill
