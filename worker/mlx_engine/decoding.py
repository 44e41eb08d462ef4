"""Decoding: one token for each running sequence at a time. `batching` does it for many at once.

Sequences come with their prompt prefilled and their first token sampled. The KV a sequence ends with holds exactly
the tokens given with it, so that it may go into the prefix cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import mlx.core as mx

from ...ipc.messages import Id
from .choosing import Chooser
from .kv import evaluate

Ending: TypeAlias = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Held:
    """A KV cache and the tokens in it."""

    tokens: list[int]
    kv: list[Any]


@dataclass(frozen=True, slots=True)
class Start:
    """A sequence ready to decode.

    Attributes:
        key: Whose it is.
        prompt: Tokens in `kv`; the KV belongs to the decoder from now on.
        first: The token after them, already sampled.
        most: How many tokens may follow the first; at least one.
        chooser: Its next call chooses the token after the first.
    """

    key: Id
    prompt: list[int]
    kv: list[Any]
    first: int
    most: int
    chooser: Chooser


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a step gave a sequence. With `ended` it has left the decoder, and `held` is what it leaves behind.

    On `stop` the token is an end of sequence, and not part of the answer.
    """

    key: Id
    token: int
    ended: Ending | None = None
    held: Held | None = None


class Decoder(Protocol):
    """Any exception of `step` leaves the sequences' KV in an unknown state: drop the decoder with all of them."""

    def add(self, start: Start) -> None:
        """Take a sequence."""

    def step(self) -> list[Decoded]:
        """One token for each sequence."""

    def remove(self, key: Id) -> Held | None:
        """Let a sequence go; None if there is none of that key."""

    @property
    def nbytes(self) -> int:
        """Bytes of all sequences' KV."""

    def __len__(self) -> int: ...


@dataclass(slots=True)
class _Running:
    start: Start
    tokens: list[int]
    pending: int
    left: int


class SequentialDecoder:
    """Decodes one sequence after the other, for KV caches that can't be merged into a batch.

    Args:
        model: Any.
        ends: Token ids that end a sequence.
    """

    def __init__(self, model: Any, ends: Iterable[int]) -> None:
        self._model = model
        self._ends = frozenset(ends)
        self._running: dict[Id, _Running] = {}

    def __len__(self) -> int:
        return len(self._running)

    @property
    def nbytes(self) -> int:
        """See `Decoder`."""
        return sum(layer.nbytes for running in self._running.values() for layer in running.start.kv)

    def add(self, start: Start) -> None:
        """See `Decoder`."""
        self._running[start.key] = _Running(start, list(start.prompt), start.first, start.most)

    def step(self) -> list[Decoded]:
        """See `Decoder`."""
        return [self._next(running) for running in list(self._running.values())]

    def _next(self, running: _Running) -> Decoded:
        logits = self._model(mx.array([[running.pending]]), cache=running.start.kv)[:, -1, :]
        sampled = running.start.chooser.choose(mx.array([running.pending]), logits)
        evaluate(running.start.kv)
        running.tokens.append(running.pending)
        running.pending = token = int(sampled.item())
        running.left -= 1
        reason = ended(at_end=token in self._ends, left=running.left)
        held = self.remove(running.start.key) if reason else None
        return Decoded(running.start.key, token, reason, held)

    def remove(self, key: Id) -> Held | None:
        """See `Decoder`."""
        running = self._running.pop(key, None)
        return None if running is None else Held(running.tokens, running.start.kv)


def ended(*, at_end: bool, left: int) -> Ending | None:
    """Whether a sequence ends with a token.

    Args:
        at_end: The token is an end token.
        left: How many may follow it.
    """
    if at_end:
        return "stop"
    return "length" if left <= 0 else None
