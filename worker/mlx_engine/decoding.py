"""Decoding: one token for each running sequence at a time.

Sequences come with their prompt prefilled and their first token sampled. The KV a sequence ends with holds exactly
the tokens given with it, so that it may go into the prefix cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import mlx.core as mx
from mlx_lm.generate import BatchGenerator

from ...ipc.messages import Id
from .choosing import Chooser
from .kv import evaluate


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

    On `stop` the token is an end of sequence: part of the KV, but not of the answer.
    """

    key: Id
    token: int
    ended: Literal["stop", "length"] | None = None
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


class BatchDecoder:
    """Decodes all sequences in one forward, by mlx-lm's batch generator.

    The generator only decodes here: given a prompt, it would take three forwards to the first token instead of one.

    Args:
        model: Its KV caches have `merge`.
        ends: Token ids that end a sequence.
        most: Sequences in a batch.
    """

    def __init__(self, model: Any, ends: Iterable[int], most: int) -> None:
        self._generator: Any = BatchGenerator(
            model, stop_tokens=[[token] for token in ends], completion_batch_size=most, prefill_batch_size=1
        )
        self._keys: dict[int, Id] = {}

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        """See `Decoder`."""
        return int(self._generator.prompt_cache_nbytes)

    def add(self, start: Start) -> None:
        """See `Decoder`."""
        uids = self._generator.insert(
            [[start.first]],
            max_tokens=[start.most],
            caches=[start.kv],
            all_tokens=[list(start.prompt)],
            samplers=[start.chooser.sampler],
            logits_processors=[[start.chooser.process] if start.chooser.processes else []],
        )
        self._keys[uids[0]] = start.key

    def step(self) -> list[Decoded]:
        """See `Decoder`."""
        # The first call after an insertion may give that sequence nothing yet.
        _, responses = self._generator.next()
        return [self._decoded(response) for response in responses]

    def _decoded(self, response: Any) -> Decoded:
        if response.finish_reason is None:
            return Decoded(self._keys[response.uid], int(response.token))
        key = self._keys.pop(response.uid)
        evaluate(response.prompt_cache)  # a lazy slice would keep the whole batch's arrays
        held = Held(list(response.all_tokens), response.prompt_cache)
        return Decoded(key, int(response.token), response.finish_reason, held)

    def remove(self, key: Id) -> Held | None:
        """See `Decoder`."""
        uid = next((uid for uid, name in self._keys.items() if name == key), None)
        if uid is None:
            return None
        del self._keys[uid]
        kv, tokens = self._generator.remove([uid], return_prompt_caches=True)[uid]
        evaluate(kv)
        return Held(list(tokens), kv)


@dataclass(slots=True)
class _Running:
    start: Start
    tokens: list[int]
    pending: int
    left: int


class SequentialDecoder:
    """Decodes one sequence after the other, for KV caches that the batch generator doesn't take. Stops likewise.

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
        ended = _ended(token in self._ends, running.left)
        held = self.remove(running.start.key) if ended else None
        return Decoded(running.start.key, token, ended, held)

    def remove(self, key: Id) -> Held | None:
        """See `Decoder`."""
        running = self._running.pop(key, None)
        return None if running is None else Held(running.tokens, running.start.kv)


def decoder_for(model: Any, ends: Iterable[int], most: int, *, batchable: bool) -> Decoder:
    """The fastest decoder that the model's KV caches allow."""
    return BatchDecoder(model, ends, most) if batchable else SequentialDecoder(model, ends)


def _ended(at_end: bool, left: int) -> Literal["stop", "length"] | None:
    if at_end:
        return "stop"
    return "length" if left <= 0 else None
