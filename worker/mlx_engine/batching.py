"""Decoding in a batch: one forward for all running sequences.

On mlx-lm's batched KV caches, but not by its batch generator. That computes a forward for each newcomer alone before
it joins, and always looks one token ahead: a forward more at each sequence's end, and each token a step later. On a
CPU, which computes nothing beside Python, both are waste; on a GPU looking ahead keeps it busy while Python works.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.generate import maybe_set_recommended_wired_limit

from ...ipc.messages import Id
from .choosing import choose_each
from .decoding import Decoded, Decoder, Held, SequentialDecoder, Start, ended
from .kv import evaluate
from .logprobs import begin

STEPS_BETWEEN_CLEARANCES = 512
"""Steps after which mlx's cache of freed memory is emptied: growing batches leave pieces of every size."""


@dataclass(slots=True)
class _Row:
    """A sequence of the batch.

    Attributes:
        start: What it began with.
        tokens: Those in the KV.
        left: How many tokens may still be told.
        fresh: No step has computed it yet; its next input is the token that was known before it came.
    """

    start: Start
    tokens: list[int]
    left: int
    fresh: bool = True


class BatchDecoder:
    """Decodes all sequences in one forward. See `Decoder`.

    Args:
        model: Its KV caches have `merge`.
        ends: Token ids that end a sequence.
        ahead: Begin the next step before this one's tokens are known here; None: on a GPU.
    """

    def __init__(self, model: Any, ends: Iterable[int], *, ahead: bool | None = None) -> None:
        self._model = model
        self._ends = frozenset(ends)
        self._ahead = mx.default_device().type != mx.DeviceType.cpu if ahead is None else ahead
        self._rows: list[_Row] = []
        self._kv: list[Any] = []
        self._merged = False
        self._inputs: Any = None
        self._steps = 0
        maybe_set_recommended_wired_limit()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """See `Decoder`."""
        return sum(layer.nbytes for layer in self._kv)

    def add(self, start: Start) -> None:
        """See `Decoder`."""
        first = mx.array([start.first])
        if self._rows:
            self._merge()
            for layer, newcomer in zip(self._kv, start.kv, strict=True):
                layer.extend(newcomer.merge([newcomer]))
            self._inputs = mx.concatenate([self._inputs, first])
        else:
            self._kv, self._merged, self._inputs = start.kv, False, first
        self._rows.append(_Row(start, list(start.prompt), start.most))

    def step(self) -> list[Decoded]:
        """See `Decoder`. With looking ahead, the first call after `add` gives that sequence nothing yet."""
        if not self._rows:
            return []
        inputs = self._inputs
        logits = self._model(inputs[:, None], cache=self._kv)[:, -1, :]
        self._inputs = choose_each([row.start.chooser for row in self._rows], inputs, logits)
        begin(self._inputs)
        for row, token in zip(self._rows, inputs.tolist(), strict=True):
            row.tokens.append(token)
        decoded = self._decoded((inputs if self._ahead else self._inputs).tolist())
        self._steps += 1
        if self._steps % STEPS_BETWEEN_CLEARANCES == 0:
            mx.clear_cache()
        return decoded

    def remove(self, key: Id) -> Held | None:
        """See `Decoder`."""
        place = next((place for place, row in enumerate(self._rows) if row.start.key == key), None)
        if place is None:
            return None
        held = self._held(place)
        self._leave([place])
        return held

    def _merge(self) -> None:
        """Batched KV caches need a mask and an offset for each row, which one sequence alone has no use for."""
        if not self._merged:
            self._kv, self._merged = [layer.merge([layer]) for layer in self._kv], True

    def _decoded(self, tokens: list[int]) -> list[Decoded]:
        decoded: list[Decoded] = []
        leaving: list[int] = []
        for place, (row, token) in enumerate(zip(self._rows, tokens, strict=True)):
            fresh, row.fresh = row.fresh, False
            if fresh and self._ahead:
                continue
            row.left -= 1
            reason = ended(at_end=token in self._ends, left=row.left)
            if reason:
                leaving.append(place)
            decoded.append(Decoded(row.start.key, token, reason, self._held(place) if reason else None))
        self._leave(leaving)
        return decoded

    def _held(self, place: int) -> Held:
        kv = [layer.extract(place) for layer in self._kv] if self._merged else self._kv
        evaluate(kv)  # a lazy slice would keep the whole batch's arrays
        return Held(self._rows[place].tokens, kv)

    def _leave(self, places: list[int]) -> None:
        if not places:
            return
        keep = [place for place in range(len(self._rows)) if place not in places]
        self._rows = [self._rows[place] for place in keep]
        if keep:
            for layer in self._kv:
                layer.filter(keep)
            self._inputs = self._inputs[mx.array(keep)]
        else:
            self._kv, self._inputs = [], None


def decoder_for(model: Any, ends: Iterable[int], *, batchable: bool) -> Decoder:
    """The fastest decoder that the model's KV caches allow."""
    return BatchDecoder(model, ends) if batchable else SequentialDecoder(model, ends)
