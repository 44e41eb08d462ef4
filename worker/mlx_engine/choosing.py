"""How one sequence's tokens are chosen: from the model's logits to a token.

In this order: log probabilities are noted; repetition, presence and frequency penalties and bias are applied; a
constraint takes out what it forbids; then the sampler draws. All but the sampler is a *process*, which mlx-lm calls a
logits processor; a sequence that needs none is sampled together with the others of its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ...ipc.messages import Generate, TokenLogprob
from .constraining import Constrained, Grammars
from .loading import LoadedModel
from .logprobs import Recorder, begin
from .penalties import Penalties
from .sampling import Sampler, sample_each, sampler_for
from .token_bytes import TokenBytes


@dataclass(slots=True)
class Chooser:
    """Chooses the tokens of one sequence. Its calls come once for each position, in order.

    None of them raises for what a request asks: an exception in a batch would end all its sequences.

    Attributes:
        sampler: Draws from logits.
        penalties: Where there are any.
        constraint: Where there is one.
        recorder: Where log probabilities are asked for.
    """

    sampler: Sampler
    penalties: Penalties | None = None
    constraint: Constrained | None = None
    recorder: Recorder | None = None
    _begun: bool = False

    @property
    def processes(self) -> bool:
        """Whether `process` does anything."""
        return bool(self.penalties or self.constraint or self.recorder)

    @property
    def failure(self) -> str | None:
        """Why no more tokens can be chosen, if so."""
        return self.constraint.failure if self.constraint else None

    def process(self, tokens: Any, logits: Any) -> Any:
        """Logits shaped (1, vocabulary) as the sampler shall see them.

        Args:
            tokens: Array of the sequence's tokens, of which all but the last are known from earlier calls. At the
                first call all of them are.
            logits: The model's, for the position after them.
        """
        if self.recorder:
            self.recorder.record(logits)
        if self._begun:
            self._hear(tokens[-1:], logits)
        self._begun = True
        if self.penalties:
            logits = self.penalties(logits)
        return self.constraint.mask(logits) if self.constraint else logits

    def choose(self, tokens: Any, logits: Any) -> Any:
        """An array of one token, for the position after `tokens`, as `process` and sampler have it."""
        return self.sampler(self.process(tokens, logits) if self.processes else logits)

    def told(self, token: int) -> tuple[TokenLogprob, ...]:
        """What is to be told of the oldest token not told yet."""
        return (self.recorder.tell(token),) if self.recorder else ()

    def _hear(self, token: Any, logits: Any) -> None:
        if self.penalties:
            self.penalties.heard(token)
        if self.constraint:
            begin(logits)  # the device computes while the constraint waits for the token before
            self.constraint.heard(int(token.item()))


class Choosers:
    """Makes the choosers of one model's sequences.

    Args:
        loaded: The model.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._grammars = Grammars(loaded)
        self._spelling: TokenBytes | None = None

    def chooser(self, body: Generate, prompt: Sequence[int]) -> Chooser:
        """For a request that is found good otherwise; what earlier workers emitted is heard here.

        Args:
            body: The request.
            prompt: Token ids of its prompt.

        Raises:
            Unsupported, InvalidRequest: Its constraint can't be kept.
        """
        constraint = None
        if body.constraint is not None:
            constraint = self._grammars.begin(body.constraint, body.prompt, prompt, several=body.parallel_calls)
            for token in body.emitted:
                constraint.heard(token)
        penalties = None
        if Penalties.wanted(body.sampling):
            penalties = Penalties(body.sampling, prompt, body.emitted, self._loaded.width)
        sampler = sampler_for(body.sampling, len(body.emitted))
        return Chooser(sampler, penalties, constraint, self._recorder(body.logprobs))

    def _recorder(self, top: int | None) -> Recorder | None:
        if top is None:
            return None
        if self._spelling is None:
            self._spelling = TokenBytes(self._loaded.tokenizer)
        return Recorder(top, self._spelling)


def choose_each(choosers: Sequence[Chooser], tokens: Any, logits: Any) -> Any:
    """One token for each row of a batch, as `Chooser.choose` would have it of the row alone.

    Args:
        choosers: Of the rows.
        tokens: Array of the last token of each row.
        logits: Shaped (rows, vocabulary).
    """
    if any(chooser.processes for chooser in choosers):
        rows = [logits[place : place + 1] for place in range(len(choosers))]
        for place, chooser in enumerate(choosers):
            if chooser.processes:
                rows[place] = chooser.process(tokens[place : place + 1], rows[place])
        logits = mx.concatenate(rows)
    return sample_each([chooser.sampler for chooser in choosers], logits)
