"""From a generation's outputs to the Responses API's events, and to the document they end in; no I/O.

An answer that does not stream is made by the same steps, and its events are dropped: the two can't differ.

The order of events: `response.created`, `response.in_progress`; for each item `output_item.added`, its content piece
by piece, `output_item.done`; then one of `response.completed`, `response.incomplete`, `response.failed`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

from ....ipc.messages import Delta, Finished, ToolCall
from ...dispatch import Output
from ..errors import SERVER, ApiError
from ..openai.logprobs import ChosenLogprob, chat_logprobs
from ..sse import comment
from .document import (
    IncompleteDetails,
    InputDetails,
    OutputCall,
    OutputDetails,
    OutputItem,
    OutputMessage,
    OutputReasoning,
    OutputText,
    ReasoningText,
    Response,
    ResponseFault,
    ResponseUsage,
)
from .types import Status

Kind: TypeAlias = Literal["message", "reasoning"]

_PREFIX: dict[Kind, str] = {"message": "msg", "reasoning": "rs"}
_SAID: dict[Kind, str] = {"message": "response.output_text", "reasoning": "response.reasoning_text"}

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Open:
    """The item that is being written. Its deltas differ only in text and number: the rest is encoded once."""

    kind: Kind
    id: str
    index: int
    head: bytes
    texts: list[str] = field(default_factory=list)
    logprobs: list[ChosenLogprob] = field(default_factory=list)

    def part(self) -> OutputText | ReasoningText:
        """Its one content part, so far."""
        text = "".join(self.texts)
        if self.kind == "reasoning":
            return ReasoningText(text=text)
        return OutputText(text=text, logprobs=tuple(self.logprobs))

    def item(self, status: Status) -> OutputItem:
        """It, so far."""
        part = self.part()
        if isinstance(part, ReasoningText):
            return OutputReasoning(id=self.id, status=status, content=(part,))
        return OutputMessage(id=self.id, status=status, content=(part,))


class Answer:
    """One answer in the making; an `Encoder`.

    Args:
        response: The document as it begins.
        spaces: See `Tools`.
    """

    def __init__(self, response: Response, spaces: Mapping[str, tuple[str, str]] | None = None) -> None:
        self.response = response
        self._spaces = spaces or {}
        self.complete = False
        self._items: list[OutputItem] = []
        self._open: _Open | None = None
        self._held: tuple[Kind, str] = ("message", "")
        self._unsaid: list[ChosenLogprob] = []
        self._reasoning_tokens = 0
        self._number = 0

    def output(self, output: Output) -> bytes:
        """See `Encoder`."""
        begin = b"" if self._number else self._begin()
        match output:
            case Delta():
                return begin + self._delta(output)
            case Finished():
                return begin + self._end(output)
        return begin

    def alive(self, note: str) -> bytes:
        """See `Encoder`."""
        return comment(note)

    def failure(self, error: ApiError) -> bytes:
        """See `Encoder`. Before the response was told of, there is nothing that could have failed but the request."""
        fault = error.fault
        if not self._number:
            return self._event("error", code=fault.code, message=fault.message, param=fault.param)
        last = [self._open.item("incomplete")] if self._open else []
        self.response = msgspec.structs.replace(
            self.response,
            status="failed",
            error=ResponseFault(_fault_code(error), fault.message),
            output=(*self._items, *last),
        )
        return self._event("response.failed", response=self.response)

    # -- the steps ---------------------------------------------------------------------------------------

    def _begin(self) -> bytes:
        return self._event("response.created", response=self.response) + self._event(
            "response.in_progress", response=self.response
        )

    def _delta(self, delta: Delta) -> bytes:
        if delta.channel == "reasoning":
            self._reasoning_tokens += len(delta.tokens)
        elif delta.logprobs:
            self._unsaid += chat_logprobs(delta.logprobs).content
        events = self._text(delta.text, "reasoning" if delta.channel == "reasoning" else "message")
        for call in delta.calls:
            events += self._call(call)
        return events

    def _text(self, text: str, kind: Kind) -> bytes:
        if not text:
            return b""
        now = self._open
        if now is not None and now.kind == kind:
            return self._piece(now, text)
        if self._held[0] == kind:
            text = self._held[1] + text
        if text.isspace():
            # Models put empty lines between thoughts, calls and text: no item is made of that alone.
            self._held = (kind, text)
            return b""
        self._held = (kind, "")
        events = self._close("completed")
        return events + self._start(kind, text)

    def _start(self, kind: Kind, text: str) -> bytes:
        index = len(self._items)
        name = f"{_PREFIX[kind]}_{secrets.token_hex(20)}"
        place = {"item_id": name, "output_index": index, "content_index": 0}
        event = f"{_SAID[kind]}.delta"
        head = f"event: {event}\ndata: ".encode() + _encode({"type": event, **place})[:-1] + b',"delta":'
        now = self._open = _Open(kind, name, index, head)
        item = msgspec.structs.replace(now.item("in_progress"), content=())
        return (
            self._event("response.output_item.added", output_index=index, item=item)
            + self._event("response.content_part.added", **place, part=now.part())
            + (self._piece(now, text) if text else b"")
        )

    def _piece(self, now: _Open, text: str) -> bytes:
        now.texts.append(text)
        number = self._number
        self._number += 1
        if now.kind == "reasoning":
            return b'%b%b,"sequence_number":%d}\n\n' % (now.head, _encode(text), number)
        if not self._unsaid:
            return b'%b%b,"logprobs":[],"sequence_number":%d}\n\n' % (now.head, _encode(text), number)
        logprobs, self._unsaid = self._unsaid, []
        now.logprobs += logprobs
        return b'%b%b,"logprobs":%b,"sequence_number":%d}\n\n' % (now.head, _encode(text), _encode(logprobs), number)

    def _close(self, status: Status) -> bytes:
        now, self._open = self._open, None
        if now is None:
            return b""
        part, item = now.part(), now.item(status)
        self._items.append(item)
        place = {"item_id": now.id, "output_index": now.index, "content_index": 0}
        said = {"logprobs": part.logprobs} if isinstance(part, OutputText) else {}
        return (
            self._event(f"{_SAID[now.kind]}.done", **place, text=part.text, **said)
            + self._event("response.content_part.done", **place, part=part)
            + self._event("response.output_item.done", output_index=now.index, item=item)
        )

    def _call(self, call: ToolCall) -> bytes:
        events = self._close("completed")
        space, name = self._spaces.get(call.name, (msgspec.UNSET, call.name))
        item = OutputCall(
            id=f"fc_{secrets.token_hex(20)}",
            status="completed",
            call_id=f"call_{secrets.token_hex(12)}",
            name=name,
            namespace=space,
            arguments=call.arguments,
        )
        empty = msgspec.structs.replace(item, status="in_progress", arguments="")
        place = {"item_id": item.id, "output_index": len(self._items)}
        self._unsaid.clear()
        self._items.append(item)
        return (
            events
            + self._event("response.output_item.added", output_index=place["output_index"], item=empty)
            + self._event("response.function_call_arguments.delta", **place, delta=call.arguments)
            + self._event("response.function_call_arguments.done", **place, arguments=call.arguments)
            + self._event("response.output_item.done", output_index=place["output_index"], item=item)
        )

    def _end(self, finished: Finished) -> bytes:
        if finished.reason == "cancelled":
            raise ApiError(
                503, "The server gave up this answer; try again.", kind=SERVER, code="cancelled", retry_after=1
            )
        events = self._text(finished.text, "reasoning" if finished.channel == "reasoning" else "message")
        cut = finished.reason == "length"
        status: Status = "incomplete" if cut else "completed"
        events += self._close(status)
        if self._is_mute(cut=cut):
            kind, held = self._held
            events += self._start("message", held if kind == "message" else "") + self._close(status)
        self.complete = True
        self.response = msgspec.structs.replace(
            self.response,
            status=status,
            completed_at=None if cut else int(time.time()),
            incomplete_details=IncompleteDetails() if cut else None,
            output=tuple(self._items),
            usage=self._usage(finished),
        )
        return events + self._event(f"response.{self.response.status}", response=self.response)

    def _is_mute(self, *, cut: bool) -> bool:
        """Whether it lacks the message that clients look for, without having called or been cut while it thought."""
        return not self._items or (not cut and all(isinstance(item, OutputReasoning) for item in self._items))

    def _usage(self, finished: Finished) -> ResponseUsage:
        counts = finished.usage
        return ResponseUsage(
            input_tokens=counts.prompt_tokens,
            input_tokens_details=InputDetails(counts.cached_tokens),
            output_tokens=counts.completion_tokens,
            output_tokens_details=OutputDetails(self._reasoning_tokens),
            total_tokens=counts.prompt_tokens + counts.completion_tokens,
        )

    def _event(self, kind: str, **fields: Any) -> bytes:
        number = self._number
        self._number += 1
        data = _encode({"type": kind, **fields, "sequence_number": number})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


def new_response(model: str, shown: dict[str, Any]) -> Response:
    """The document as an answer begins. `model` is echoed as the client wrote it."""
    return Response(id=f"resp_{secrets.token_hex(24)}", created_at=int(time.time()), model=model, **shown)


def _fault_code(error: ApiError) -> Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]:
    if error.status == 429:
        return "rate_limit_exceeded"
    return "server_error" if error.status >= 500 else "invalid_prompt"
