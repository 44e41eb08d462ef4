"""From a generation's events to the bytes of a message, whole or as a stream of events; no I/O.

A message is a list of blocks: what was thought, what was said, and calls, each kind in blocks of its own. What is
nothing but white space between two others, such as the newline before a call, is no block.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import msgspec

from ....ipc.messages import Delta, Finished, ToolCall, Usage
from ...dispatch import Output, Started, Waiting
from ..errors import SERVER, ApiError
from ..sse import comment
from . import errors as anthropic_errors
from .request import MessagesCall
from .types import (
    AnswerBlock,
    AnswerMessage,
    AnswerText,
    AnswerThinking,
    AnswerToolUse,
    CumulativeUsage,
    MessageUsage,
    ThinkingTokens,
)

U = TypeVar("U", bound=CumulativeUsage)

Kind: TypeAlias = Literal["text", "thinking"]

SIGNATURE = "stoker"
"""Stands where Anthropic vouches for what its model thought. Clients want one there, and send it back unread."""

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

_encode = msgspec.json.Encoder().encode


class Label(msgspec.Struct, frozen=True):
    """What identifies an answer, and how much of it is told: see `MessagesCall`."""

    id: str
    model: str
    request_id: str
    show_thinking: bool = True
    only_warm: bool = False


def new_label(call: MessagesCall, request_id: str) -> Label:
    """A label for a new answer. The model's name is echoed as the client wrote it."""
    return Label(f"msg_{secrets.token_hex(12)}", call.model, request_id, call.show_thinking, call.only_warm)


def unsaid(finished: Finished) -> Finished:
    """The end of an answer that nobody wants: the prompt is computed, and that was all."""
    counts = msgspec.structs.replace(finished.usage, completion_tokens=0)
    reason = finished.reason if finished.reason == "cancelled" else "length"
    return msgspec.structs.replace(finished, reason=reason, text="", stop=None, usage=counts)


def usage(counts: Usage, thinking_tokens: int, kind: type[U]) -> U:
    """Token counts in Anthropic's terms, where the prompt is what was read from the cache and what was not."""
    return kind(
        input_tokens=counts.prompt_tokens - counts.cached_tokens,
        cache_read_input_tokens=counts.cached_tokens,
        output_tokens=counts.completion_tokens,
        output_tokens_details=ThinkingTokens(thinking_tokens),
    )


def stop_reason(finished: Finished, *, called: bool) -> str:
    """Anthropic's word for how the answer ended.

    Raises:
        ApiError: 503, if it was given up by the server's side: that is no answer.
    """
    if finished.reason == "cancelled":
        raise ApiError(
            503, "The server gave up this answer; try again.", kind=SERVER, code="cancelled", retry_after=1
        )
    if finished.reason == "length":
        return "max_tokens"
    if finished.stop is not None:
        return "stop_sequence"
    return "tool_use" if called else "end_turn"


def _kind(channel: str) -> Kind:
    # A call that never became complete is told as the text that it is.
    return "thinking" if channel == "reasoning" else "text"


def _new_call_id() -> str:
    return f"toolu_{secrets.token_hex(12)}"


class Events:
    """The events of one streamed answer. What doesn't change within a block is encoded once.

    The answer begins when a worker has admitted it: only then are the prompt's tokens known, which the first event
    tells. Until then, and in silence, there are pings; SDKs skip them wherever they stand.
    """

    def __init__(self, label: Label) -> None:
        self._label = label
        self._begun = False
        self._index = 0
        self._kind: Kind | None = None
        """Of what is being said; its block is open once there is more than white space."""
        self._held = ""
        """White space that may turn out to be a block's beginning."""
        self._open = False
        self._head = b""
        """Of the open block's deltas, up to their text; empty where they aren't shown."""
        self._called = False
        self._thinking_tokens = 0
        self.complete = False

    def output(self, output: Output) -> bytes:
        """See `Encoder`."""
        if isinstance(output, Delta):
            begin = b"" if self._begun else self._begin(None)
            return begin if self._label.only_warm else begin + self._delta(output)
        match output:
            case Waiting():
                return b""
            case Started() if not self._begun:
                return self._begin(output)
            case Finished():
                begin = b"" if self._begun else self._begin(None)
                return begin + self._end(output)
        return b""

    def alive(self, note: str) -> bytes:
        """See `Encoder`."""
        return comment(note)[:-1] + PING

    def failure(self, error: ApiError) -> bytes:
        """See `Encoder`."""
        return b"event: error\ndata: " + anthropic_errors.document(error, self._label.request_id) + b"\n\n"

    def _begin(self, started: Started | None) -> bytes:
        self._begun = True
        prompt, cached = (started.prompt_tokens, started.cached_tokens) if started else (0, 0)
        counts = usage(Usage(prompt_tokens=prompt, completion_tokens=0, cached_tokens=cached), 0, MessageUsage)
        message = AnswerMessage(id=self._label.id, model=self._label.model, usage=counts)
        return _event("message_start", b'"message":' + _encode(message))

    def _delta(self, delta: Delta) -> bytes:
        if delta.channel == "reasoning":
            self._thinking_tokens += len(delta.tokens)
        events = self._said(delta.text, _kind(delta.channel)) if delta.text else b""
        for call in delta.calls:
            events += self._close() + self._call(call)
        return events

    def _said(self, text: str, kind: Kind) -> bytes:
        if kind == self._kind and self._open:
            return self._head + _encode(text) + b"}}\n\n" if self._head else b""
        events = b"" if kind == self._kind else self._close()
        self._kind = kind
        self._held += text
        if self._held.isspace():
            return events
        text, self._held = self._held, ""
        return events + self._start(kind) + self._said(text, kind)

    def _start(self, kind: Kind) -> bytes:
        self._open = True
        self._head = b""
        if kind == "text" or self._label.show_thinking:
            self._head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,' % self._index
            self._head += b'"delta":{"type":"%s_delta","%s":' % (kind.encode(), kind.encode())
        return self._block_start(AnswerText("") if kind == "text" else AnswerThinking("", ""))

    def _close(self) -> bytes:
        """End what is being said."""
        was_open, kind = self._open, self._kind
        self._open, self._kind, self._held = False, None, ""
        if not was_open:
            return b""
        signature = b'{"type":"signature_delta","signature":"%s"}' % SIGNATURE.encode()
        return (self._block_delta(signature) if kind == "thinking" else b"") + self._block_stop()

    def _call(self, call: ToolCall) -> bytes:
        self._called = True
        arguments = b'{"type":"input_json_delta","partial_json":%s}' % _encode(call.arguments or "{}")
        block = AnswerToolUse(_new_call_id(), call.name, msgspec.Raw(b"{}"))
        return self._block_start(block) + self._block_delta(arguments) + self._block_stop()

    def _end(self, finished: Finished) -> bytes:
        if self._label.only_warm:
            finished = unsaid(finished)
        reason = stop_reason(finished, called=self._called)
        events = self._said(finished.text, _kind(finished.channel)) if finished.text else b""
        events += self._close()
        delta = {
            "stop_reason": reason,
            "stop_sequence": finished.stop if reason == "stop_sequence" else None,
            "stop_details": None,
            "container": None,
        }
        counts = _encode(usage(finished.usage, self._thinking_tokens, CumulativeUsage))
        self.complete = True
        return events + _event("message_delta", b'"delta":%s,"usage":%s' % (_encode(delta), counts)) + STOP

    def _block_start(self, block: AnswerBlock) -> bytes:
        return _event("content_block_start", b'"index":%d,"content_block":%s' % (self._index, _encode(block)))

    def _block_delta(self, delta: bytes) -> bytes:
        return _event("content_block_delta", b'"index":%d,"delta":%s' % (self._index, delta))

    def _block_stop(self) -> bytes:
        event = _event("content_block_stop", b'"index":%d' % self._index)
        self._index += 1
        return event


def _event(name: str, fields: bytes) -> bytes:
    kind = name.encode()
    return b'event: %s\ndata: {"type":"%s",%s}\n\n' % (kind, kind, fields)


@dataclass(slots=True)
class _Said:
    kind: Kind
    texts: list[str]


class Gathering:
    """A whole answer in the making."""

    def __init__(self, label: Label) -> None:
        self._label = label
        self._parts: list[_Said | ToolCall] = []
        self._thinking_tokens = 0

    def add(self, delta: Delta) -> None:
        """Take a delta."""
        if self._label.only_warm:
            return
        if delta.channel == "reasoning":
            self._thinking_tokens += len(delta.tokens)
        self._say(delta.text, delta.channel)
        self._parts.extend(delta.calls)

    def message(self, finished: Finished) -> AnswerMessage:
        """The answer.

        Raises:
            ApiError: If this was no proper end.
        """
        if self._label.only_warm:
            finished = unsaid(finished)
        reason = stop_reason(finished, called=any(isinstance(part, ToolCall) for part in self._parts))
        self._say(finished.text, finished.channel)
        blocks = [_block(part, self._label) for part in self._parts]
        return AnswerMessage(
            id=self._label.id,
            model=self._label.model,
            content=tuple(block for block in blocks if block is not None),
            stop_reason=reason,
            stop_sequence=finished.stop if reason == "stop_sequence" else None,
            usage=usage(finished.usage, self._thinking_tokens, MessageUsage),
        )

    def _say(self, text: str, channel: str) -> None:
        if not text:
            return
        kind = _kind(channel)
        last = self._parts[-1] if self._parts else None
        if isinstance(last, _Said) and last.kind == kind:
            last.texts.append(text)
        else:
            self._parts.append(_Said(kind, [text]))


def _block(part: _Said | ToolCall, label: Label) -> AnswerBlock | None:
    if isinstance(part, ToolCall):
        return AnswerToolUse(_new_call_id(), part.name, msgspec.Raw((part.arguments or "{}").encode()))
    text = "".join(part.texts)
    if text.isspace():
        return None
    if part.kind == "text":
        return AnswerText(text)
    return AnswerThinking(text if label.show_thinking else "", SIGNATURE)
