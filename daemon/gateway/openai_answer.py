"""From a generation's events to the bytes of a chat completion, whole or in chunks; no I/O."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from ... import __version__
from ...ipc.messages import Delta, Finished
from ..dispatch import Output
from .errors import SERVER, ApiError
from .openai_types import (
    AnswerMessage,
    ChatCompletion,
    Choice,
    CompletionDetails,
    PromptDetails,
    TokenUsage,
)
from .sse import comment

Channel: TypeAlias = Literal["normal", "reasoning", "tool"]

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


class Label(msgspec.Struct, frozen=True):
    """What all chunks of an answer, and a whole answer, carry."""

    id: str
    created: int
    model: str
    system_fingerprint: str


def new_label(model: str, model_id: str | None) -> Label:
    """A label for a new answer. `model` is echoed as the client wrote it."""
    return Label(f"chatcmpl-{secrets.token_hex(14)}", int(time.time()), model, _fingerprint(model_id))


def _fingerprint(model_id: str | None) -> str:
    # What an answer with a fixed seed depends on, as far as the daemon knows it.
    return f"fp_{hashlib.sha256(f'{__version__} {model_id}'.encode()).hexdigest()[:10]}"


@dataclass(slots=True)
class Tally:
    """Counts what the worker's own usage doesn't tell apart."""

    reasoning_tokens: int = 0

    def add(self, delta: Delta) -> None:
        """Take a delta into account."""
        if delta.channel == "reasoning":
            self.reasoning_tokens += len(delta.tokens)

    def usage(self, finished: Finished) -> TokenUsage:
        """The token counts of the answer."""
        counts = finished.usage
        return TokenUsage(
            prompt_tokens=counts.prompt_tokens,
            completion_tokens=counts.completion_tokens,
            total_tokens=counts.prompt_tokens + counts.completion_tokens,
            prompt_tokens_details=PromptDetails(counts.cached_tokens),
            completion_tokens_details=CompletionDetails(self.reasoning_tokens),
        )


def finish_reason(finished: Finished) -> str:
    """OpenAI's word for how the answer ended.

    Raises:
        ApiError: 503, if it was given up by the server's side: that is no answer.
    """
    if finished.reason == "cancelled":
        raise ApiError(
            503, "The server gave up this answer; try again.", kind=SERVER, code="cancelled", retry_after=1
        )
    return finished.reason


class Chunks:
    """The events of one streamed answer. What doesn't change from chunk to chunk is encoded once.

    Args:
        label: The answer's identity.
        include_usage: Whether the client asked for a last chunk with token counts; the others then say null.
    """

    def __init__(self, label: Label, *, include_usage: bool) -> None:
        fields = {"id": label.id, "object": "chat.completion.chunk"} | msgspec.structs.asdict(label)
        head = b"data: " + _encode(fields)[:-1] + b',"choices":['
        usage = b',"usage":null' if include_usage else b""
        self._delta = head + b'{"index":0,"delta":'
        self._open = b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"
        self._closed = b',"logprobs":null,"finish_reason":%s}]' + usage + b"}\n\n"
        self._usage = head + b'],"usage":%s}\n\n' if include_usage else None
        self._text = self._delta + b'{"content":'
        self._reasoning = self._delta + b'{"reasoning_content":'
        self._text_end = b"}" + self._open
        self._tally = Tally()
        self._begun = False
        self.complete = False

    def output(self, output: Output) -> bytes:
        """See `Encoder`."""
        begin = b"" if self._begun else self.first()
        self._begun = True
        match output:
            case Delta(text=text, channel=channel):
                self._tally.add(output)
                return begin + self.text(text, channel)
            case Finished():
                self.complete = True
                return begin + self.last(output, self._tally)
        return begin

    def alive(self, note: str) -> bytes:
        """See `Encoder`."""
        return comment(note)

    def failure(self, error: ApiError) -> bytes:
        """See `Encoder`."""
        return b"data: " + error.document() + b"\n\n"

    def first(self) -> bytes:
        """The chunk that opens the message."""
        return self._delta + b'{"role":"assistant","content":"","refusal":null}' + self._open

    def text(self, text: str, channel: Channel) -> bytes:
        """A piece of the message; nothing at all for no text."""
        if not text:
            return b""
        head = self._reasoning if channel == "reasoning" else self._text
        return head + _encode(text) + self._text_end

    def last(self, finished: Finished, tally: Tally) -> bytes:
        """The rest of the text, the reason, the usage if asked for, and the end.

        Raises:
            ApiError: If this was no proper end.
        """
        reason = _encode(finish_reason(finished))
        events = self.text(finished.text, finished.channel) + self._delta + b"{}" + self._closed % reason
        if self._usage is not None:
            events += self._usage % _encode(tally.usage(finished))
        return events + DONE


class Gathering:
    """A whole answer in the making."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._tally = Tally()

    def add(self, delta: Delta) -> None:
        """Take a delta."""
        self._tally.add(delta)
        self._append(delta.text, delta.channel)

    def completion(self, finished: Finished, label: Label) -> ChatCompletion:
        """The answer.

        Raises:
            ApiError: If this was no proper end.
        """
        self._append(finished.text, finished.channel)
        reasoning = "".join(self._reasoning) or msgspec.UNSET
        message = AnswerMessage(content="".join(self._text), reasoning_content=reasoning)
        return ChatCompletion(
            **msgspec.structs.asdict(label),
            choices=(Choice(message=message, finish_reason=finish_reason(finished)),),
            usage=self._tally.usage(finished),
        )

    def _append(self, text: str, channel: Channel) -> None:
        (self._reasoning if channel == "reasoning" else self._text).append(text)
