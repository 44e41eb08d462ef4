"""Tool calls in an answer's text, gathered and parsed by the model's own parser.

What is no call after all, because it is cut off or its text can't be parsed, is ordinary text, marks and all: nothing
that the model said is lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from ..ipc.messages import ToolCall

Channel: TypeAlias = Literal["normal", "reasoning", "tool"]

Parser: TypeAlias = Callable[[str], Any]
"""The text between the marks to what mlx-lm's parsers return; may raise anything."""


class Piece(NamedTuple):
    """Text of one channel, or tool calls that are complete."""

    channel: Channel
    text: str
    calls: tuple[ToolCall, ...] = ()


class CallReader:
    """Takes the text of each channel as it comes, and gives what the client shall see.

    Blanks between two calls, and between reasoning and a call, are part of the format, and left out.

    Args:
        parser: None leaves tool calls as they are: text.
        begin: The mark that was taken out before a call's text.
        end: The mark after it; empty where only the answer's end ends a call.
        parallel: Whether a second call may follow the first.
    """

    def __init__(self, parser: Parser | None, begin: str = "", end: str = "", *, parallel: bool = True) -> None:
        self._parser = parser
        self._begin = begin
        self._end = end
        self._parallel = parallel
        self._channel: Channel = "normal"
        self._call = ""
        self._blanks: str | None = ""
        self._called = False

    @property
    def ended(self) -> bool:
        """The one call that was allowed is complete; nothing comes any more."""
        return self._called and not self._parallel

    def add(self, channel: Channel, text: str) -> list[Piece]:
        """Text that goes on in the channel of the text before it."""
        if self.ended or not text:
            return []
        if channel == "normal":
            plain = self._without_blanks(text) if self._blanks is not None and self._parser else text
            return [Piece("normal", plain)] if plain else []
        if channel == "reasoning":
            return [Piece("reasoning", text)]
        if self._parser is None:
            return _texts(text)
        self._call += text
        return []

    def switch(self, channel: Channel) -> list[Piece]:
        """A mark was found: other text begins, in this channel."""
        pieces = self._closed(mark=self._end, whole=True) if self._channel == "tool" else []
        before, self._channel = self._channel, channel
        if self.ended or channel == before:
            return pieces
        if channel == "tool":
            return [*pieces, *_texts(self._begin if self._parser is None else "")]
        blanks = self._blanks or "" if channel == "reasoning" else ""
        self._blanks = ""
        return [*pieces, *_texts(blanks)]

    def finish(self, *, complete: bool) -> list[Piece]:
        """The answer's end. `complete`: the model itself ended it, so a call may be whole without its end mark."""
        pieces = self._closed(mark="", whole=complete or not self._end) if self._channel == "tool" else []
        blanks, self._blanks = self._blanks or "", None
        return pieces if self._called else [*pieces, *_texts(blanks)]

    def start(self, channel: Channel) -> None:
        """The answer begins in this channel."""
        self._channel = channel

    @property
    def gathering(self) -> bool:
        """A call has begun, and is not complete."""
        return self._channel == "tool" and self._parser is not None

    def _closed(self, *, mark: str, whole: bool) -> list[Piece]:
        text, self._call = self._call, ""
        if self.ended:
            return []
        if self._parser is None:
            return _texts(mark)
        calls = parsed_calls(self._parser, text) if whole else ()
        blanks, self._blanks = self._blanks or "", None
        if not calls:
            return _texts(blanks + self._begin + text + mark)
        self._called = True
        return [Piece("tool", "", calls if self._parallel else calls[:1])]

    def _without_blanks(self, text: str) -> str:
        held = (self._blanks or "") + text
        self._blanks = held if held.isspace() else None
        return "" if held.isspace() else held


def parsed_calls(parser: Parser, text: str) -> tuple[ToolCall, ...]:
    """The calls that a text makes; none if it isn't made of calls altogether."""
    try:
        found = parser(text)
        return tuple(_call(item) for item in (found if isinstance(found, list) else [found]))
    except Exception:  # noqa: BLE001 - a parser is fed what a model made up, and raises whatever it runs into
        return ()


def _call(found: Any) -> ToolCall:
    if not isinstance(found, Mapping):
        raise TypeError("a call is an object")
    name = found["name"]
    if not isinstance(name, str) or not name:
        raise TypeError("a call has a name")
    name.encode()
    return ToolCall(name=name, arguments=_arguments(found.get("arguments", found.get("parameters"))))


def _arguments(found: Any) -> str:
    """Text of a JSON object. Some models write it as a string, and leave it out where there are no arguments."""
    value = json.loads(found) if isinstance(found, str) else {} if found is None else found
    if not isinstance(value, dict):
        raise TypeError("arguments are an object")
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can escape and UTF-8 can't hold
        text = json.dumps(value, allow_nan=False)
    return text


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces with neighbours of one channel put together."""
    result: list[Piece] = []
    for piece in pieces:
        if result and result[-1].channel == piece.channel and not (piece.calls or result[-1].calls):
            result[-1] = Piece(piece.channel, result[-1].text + piece.text)
        else:
            result.append(piece)
    return result


def _texts(text: str) -> list[Piece]:
    return [Piece("normal", text)] if text else []
