"""One generation: from its request to its `Finished`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...ipc.framing import ErrorResponse, Response
from ...ipc.messages import Delta, Finished, Id, TokenLogprob, Usage
from ..calls import Piece
from ..errors import InvalidRequest
from .choosing import Chooser
from .prefill import Prefill
from .text import TextStream


@dataclass(slots=True)
class Generation:
    """State of one generation.

    Attributes:
        id: The request's.
        tokens: To be prefilled: the prompt, and what earlier workers emitted.
        prompt_tokens: Length of the request's own prompt.
        completion_tokens: Tokens of the answer so far, those of earlier workers included.
        limit: Most tokens of the answer.
        planned: Length of the sequence that memory was set aside for.
        text: Has heard all tokens of the answer so far.
        chooser: Its next call chooses the next token.
        submitted: When the request came, on the clock of `time.perf_counter`.
        cached: How many of `tokens` need no prefill; an estimate until `prefill` is there.
        prefill: While it is under way.
        probe: It is a sign of life only, and leaves nothing behind.
    """

    id: Id
    tokens: list[int]
    prompt_tokens: int
    completion_tokens: int
    limit: int
    planned: int
    text: TextStream
    chooser: Chooser
    submitted: float
    cached: int = 0
    prefill: Prefill | None = None
    first_token_at: float | None = None
    probe: bool = False

    @property
    def remaining(self) -> int:
        """Tokens still to be prefilled."""
        return len(self.tokens) - self.cached if self.prefill is None else self.prefill.remaining

    @property
    def left(self) -> int:
        """How many tokens may still come."""
        return self.limit - self.completion_tokens

    def hear(self, token: int) -> tuple[Delta, ...]:
        """Take the answer's next token; returns what it adds for the client."""
        if self.first_token_at is None:
            self.first_token_at = time.perf_counter()
        self.completion_tokens += 1
        pieces = self.text.add(token) or (Piece(self.text.channel, ""),)  # without text, it has its place too
        return deltas(self.id, token, pieces, self.chooser.told(token))

    def refusal(self) -> ErrorResponse | None:
        """Why the answer can't go on, by no fault of the engine."""
        failure = self.chooser.failure
        return InvalidRequest(failure, field="constraint").response(self.id) if failure else None

    def ending(self) -> Literal["stop", "length"] | None:
        """Whether the tokens heard so far end the answer."""
        if self.text.stopped:
            return "stop"
        return "length" if self.left <= 0 else None

    def finished(self, reason: Literal["stop", "length", "cancelled"]) -> Response:
        """The result, with all that was held back."""
        before = self.text.finish(complete=reason == "stop")
        last = before.pop() if before and not before[-1].calls else Piece("normal", "")
        now = time.perf_counter()
        first = self.first_token_at or now
        result = Finished(
            reason=reason,
            usage=Usage(
                prompt_tokens=self.prompt_tokens,
                completion_tokens=self.completion_tokens,
                cached_tokens=min(self.cached, self.prompt_tokens),
            ),
            text=last.text,
            channel=last.channel,
            stop=self.text.stop,
            prefill_seconds=round(first - self.submitted, 6),
            decode_seconds=round(now - first, 6),
            held=tuple(_delta(self.id, piece) for piece in before),
        )
        return Response(self.id, result)


def deltas(
    target: Id, token: int, pieces: Sequence[Piece], logprobs: tuple[TokenLogprob, ...] = ()
) -> tuple[Delta, ...]:
    """One delta for each piece; the first, which there must be, carries the token and its log probability."""
    first, *others = pieces
    return _delta(target, first, (token,), logprobs), *(_delta(target, piece) for piece in others)


def _delta(target: Id, piece: Piece, tokens: tuple[int, ...] = (), logprobs: tuple[TokenLogprob, ...] = ()) -> Delta:
    channel, text, calls = piece.channel, piece.text, piece.calls
    return Delta(target=target, tokens=tokens, text=text, channel=channel, calls=calls, logprobs=logprobs)


def replay(text: TextStream, emitted: Sequence[int], ends: frozenset[int]) -> Literal["stop"] | None:
    """Bring a text stream to where an earlier worker left it, silently; says whether the answer ended there."""
    for token in emitted:
        if token in ends:
            return "stop"
        text.add(token)
        if text.stopped:
            return "stop"
    return None
