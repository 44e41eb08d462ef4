"""From a generation's outputs to the bytes of a streamed chat; no I/O.

What comes with every token is made from parts that were encoded once: two bytes objects around the encoded text.
"""

from __future__ import annotations

import msgspec

from ....ipc.messages import Delta, Finished, ToolCall
from ...dispatch import Started
from ..errors import ApiError
from ..merging import Indexed, Merged
from ..sse import comment
from .answer import Label, finish_reason, new_call_id, total_usage
from .logprobs import chat_logprobs

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


class Frame:
    """What stays the same in all chunks of one answer.

    Args:
        label: The answer's identity.
        kind: The chunks' `object`.
        include_usage: Whether the client asked for a last chunk with token counts; the others then say null.
    """

    def __init__(self, label: Label, kind: str, *, include_usage: bool) -> None:
        fields = {"id": label.id, "object": kind} | msgspec.structs.asdict(label)
        self.head = b"data: " + _encode(fields)[:-1] + b',"choices":['
        self.tail = b"]" + (b',"usage":null' if include_usage else b"") + b"}\n\n"
        self._include_usage = include_usage

    def ending(self, endings: list[Finished], reasoning_tokens: int, n: int) -> bytes:
        """The usage if it was asked for, and the end."""
        if not self._include_usage:
            return DONE
        usage = _encode(total_usage(endings, reasoning_tokens, n=n))
        return self.head + b'],"usage":' + usage + b"}\n\n" + DONE


class ChatChunks:
    """The events of a streamed chat.

    Args:
        label: The answer's identity.
        include_usage: Whether the client asked for a last chunk with token counts.
        choices: How many answers there are.
        tools: Whether an answer may call tools.
    """

    def __init__(self, label: Label, *, include_usage: bool, choices: int = 1, tools: bool = False) -> None:
        self._frame = Frame(label, "chat.completion.chunk", include_usage=include_usage)
        self._choices = [ChoiceChunks(self._frame, index, tools=tools) for index in range(choices)]
        self._first = self._choices[0]
        self.complete = False

    def output(self, output: Merged) -> bytes:
        """See `Encoder`."""
        choice = self._first
        if isinstance(output, Indexed):
            choice, output = self._choices[output.index], output.output
        if isinstance(output, Delta):
            return choice.delta(output)
        if isinstance(output, Finished):
            return choice.last(output) + self._end()
        return choice.begin() if isinstance(output, Started) else b""

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
        reasoning = sum(choice.reasoning_tokens for choice in self._choices)
        return self._frame.ending(endings, reasoning, len(endings))


class ChoiceChunks:
    """The chunks of one answer among those of a stream."""

    def __init__(self, frame: Frame, index: int, *, tools: bool) -> None:
        self._tools = tools
        self._head = head = frame.head + b'{"index":%d,"delta":' % index
        self._tail = frame.tail
        self._unfinished = b',"logprobs":null,"finish_reason":null}' + frame.tail
        self._content = head + b'{"content":'
        self._reasoning = head + b'{"reasoning_content":'
        self._plain = b"}" + self._unfinished
        self._begun = False
        self._said = False
        self._calls = 0
        self.reasoning_tokens = 0
        self.finished: Finished | None = None

    def begin(self) -> bytes:
        """The chunk that opens the message; nothing if it is open."""
        if self._begun:
            return b""
        self._begun = True
        # A message that only calls tools has no content, and whether it does is not known yet.
        content = b"null" if self._tools else b'""'
        return self._head + b'{"role":"assistant","content":' + content + b',"refusal":null}' + self._unfinished

    def delta(self, delta: Delta) -> bytes:
        """What a step adds; nothing for half a character, or a part of a call."""
        begin = b"" if self._begun else self.begin()
        if delta.channel == "reasoning":
            self.reasoning_tokens += len(delta.tokens)
            said = self._thought(delta.text)
        else:
            said = self._with_logprobs(delta) if delta.logprobs else self._text(delta.text)
        return begin + said + self._called(delta.calls) if delta.calls else begin + said

    def last(self, finished: Finished) -> bytes:
        """The rest of the text, and the reason.

        Raises:
            ApiError: If this was no proper end.
        """
        self.finished = finished
        reason = _encode(finish_reason(finished, called=self._calls > 0))
        thought = finished.channel == "reasoning"
        rest = self._thought(finished.text) if thought else self._text(finished.text)
        said = self._said or self._calls or not self._tools
        return self.begin() + rest + self._head + (b"{}" if said else b'{"content":""}') + self._closed(reason)

    def _text(self, text: str) -> bytes:
        if not text:
            return b""
        self._said = True
        return self._content + _encode(text) + self._plain

    def _thought(self, text: str) -> bytes:
        return self._reasoning + _encode(text) + self._plain if text else b""

    def _with_logprobs(self, delta: Delta) -> bytes:
        self._said = True
        logprobs = _encode(chat_logprobs(delta.logprobs))
        return (
            self._content + _encode(delta.text) + b'},"logprobs":' + logprobs + b',"finish_reason":null}' + self._tail
        )

    def _called(self, calls: tuple[ToolCall, ...]) -> bytes:
        events = b""
        for call in calls:
            function = {"name": call.name, "arguments": ""}
            opening = {"index": self._calls, "id": new_call_id(), "type": "function", "function": function}
            events += self._tool_call(opening)
            events += self._tool_call({"index": self._calls, "function": {"arguments": call.arguments}})
            self._calls += 1
        return events

    def _tool_call(self, part: dict[str, object]) -> bytes:
        return self._head + b'{"tool_calls":[' + _encode(part) + b"]}" + self._unfinished

    def _closed(self, reason: bytes) -> bytes:
        return b',"logprobs":null,"finish_reason":' + reason + b"}" + self._tail
