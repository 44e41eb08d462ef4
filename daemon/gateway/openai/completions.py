"""From a generation's outputs to a completion, whole or in chunks; no I/O."""

from __future__ import annotations

from typing import Literal

import msgspec

from ....ipc.messages import Delta, Finished, TokenLogprob
from ..errors import ApiError
from ..merging import Indexed, Merged
from ..sse import comment
from .answer import Label, TokenUsage, finish_reason, total_usage
from .chunks import Frame
from .logprobs import TextLogprobs, TextOffsets, text_logprobs

_encode = msgspec.json.Encoder().encode


class TextChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One answer."""

    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: str


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request that does not stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: tuple[TextChoice, ...]
    usage: TokenUsage
    system_fingerprint: str


class WholeText:
    """A whole completion in the making.

    Args:
        label: Its identity.
        choices: How many answers.
        n: So many in a row share a prompt.
        logprobs: How many log probabilities beside the chosen token's were asked for; None: none at all.
    """

    def __init__(self, label: Label, *, choices: int, n: int, logprobs: int | None) -> None:
        self._label = label
        self._n = n
        self._choices = [_WholeChoice(index, logprobs) for index in range(choices)]

    @property
    def complete(self) -> bool:
        """Whether every choice has come to its end."""
        return all(choice.finished is not None for choice in self._choices)

    def add(self, output: Merged) -> None:
        """Take an output."""
        if isinstance(output, Indexed):
            self._choices[output.index].add(output.output)
        else:
            self._choices[0].add(output)

    def document(self) -> Completion:
        """The answer, once complete.

        Raises:
            ApiError: If this was no proper end.
        """
        endings = [choice.finished for choice in self._choices if choice.finished is not None]
        return Completion(
            **msgspec.structs.asdict(self._label),
            choices=tuple(choice.document(end) for choice, end in zip(self._choices, endings, strict=True)),
            usage=total_usage(endings, 0, n=self._n),
        )


class _WholeChoice:
    def __init__(self, index: int, logprobs: int | None) -> None:
        self._index = index
        self._text: list[str] = []
        self._top = logprobs
        self._logprobs: list[TokenLogprob] = []
        self.finished: Finished | None = None

    def add(self, output: object) -> None:
        if isinstance(output, Delta):
            self._text.append(output.text)
            self._logprobs += output.logprobs
        elif isinstance(output, Finished):
            self._text.append(output.text)
            self.finished = output

    def document(self, finished: Finished) -> TextChoice:
        top = self._top
        return TextChoice(
            text="".join(self._text),
            index=self._index,
            logprobs=None if top is None else text_logprobs(self._logprobs, TextOffsets(), top),
            finish_reason=finish_reason(finished),
        )


class TextChunks:
    """The events of a streamed completion; the arguments are those of `WholeText`.

    `include_usage`: whether the client asked for a last chunk with token counts.
    """

    def __init__(self, label: Label, *, include_usage: bool, choices: int, n: int, logprobs: int | None) -> None:
        self._frame = Frame(label, "text_completion", include_usage=include_usage)
        self._n = n
        self._choices = [_ChoiceChunks(self._frame, index, logprobs) for index in range(choices)]
        self.complete = False

    def output(self, output: Merged) -> bytes:
        """See `Encoder`."""
        choice = self._choices[0]
        if isinstance(output, Indexed):
            choice, output = self._choices[output.index], output.output
        if isinstance(output, Delta):
            return choice.delta(output)
        return choice.last(output) + self._end() if isinstance(output, Finished) else b""

    def alive(self, note: str) -> bytes:
        """See `Encoder`."""
        return comment(note)

    def failure(self, error: ApiError) -> bytes:
        """See `Encoder`."""
        return b"data: " + error.document() + b"\n\n"

    def _end(self) -> bytes:
        endings = [choice.finished for choice in self._choices if choice.finished is not None]
        if len(endings) < len(self._choices):
            return b""
        self.complete = True
        return self._frame.ending(endings, 0, self._n)


class _ChoiceChunks:
    def __init__(self, frame: Frame, index: int, logprobs: int | None) -> None:
        self._head = frame.head + b'{"index":%d,"text":' % index
        self._tail = frame.tail
        self._plain = b',"logprobs":null,"finish_reason":null}' + frame.tail
        self._top = logprobs or 0
        self._offsets = TextOffsets()
        self.finished: Finished | None = None

    def delta(self, delta: Delta) -> bytes:
        """What a step adds; nothing for half a character."""
        if delta.logprobs:
            logprobs = _encode(text_logprobs(delta.logprobs, self._offsets, self._top))
            end = b',"logprobs":' + logprobs + b',"finish_reason":null}' + self._tail
            return self._head + _encode(delta.text) + end
        return self._head + _encode(delta.text) + self._plain if delta.text else b""

    def last(self, finished: Finished) -> bytes:
        """The rest of the text with the reason."""
        self.finished = finished
        reason = _encode(finish_reason(finished))
        end = b',"logprobs":null,"finish_reason":' + reason + b"}" + self._tail
        return self._head + _encode(finished.text) + end
