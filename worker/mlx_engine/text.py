"""Tokens to text: whole characters, stop strings, and which channel a piece belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from mlx_lm.generate import make_text_state_machine

from ..calls import CallReader, Channel, Piece, joined


class StopScanner:
    """Lets text through up to the first stop string, holding back only what may still become one.

    Args:
        stops: Any of these ends the text; empty ones are ignored.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found: str | None = None

    def add(self, text: str) -> str:
        """The text that may be shown now."""
        if self.found is not None:
            return ""
        if not self._stops:
            return text
        self._held += text
        places = [(place, stop) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        place, self.found = min(places, default=(self._safe(), None))
        shown = self._held[:place]
        self._held = "" if places else self._held[len(shown) :]
        return shown

    def finish(self) -> str:
        """The text that was held back for a stop string that never came."""
        held, self._held = self._held, ""
        return held

    def _safe(self) -> int:
        """Where the longest beginning of a stop string at the end of the held text starts."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for start in range(max(0, len(self._held) - longest), len(self._held)):
            if any(stop.startswith(self._held[start:]) for stop in self._stops):
                return start
        return len(self._held)


class TextStream:
    """The text of one answer, token by token. The same tokens give the same pieces, whoever replays them.

    Args:
        tokenizer: mlx-lm's tokenizer wrapper.
        prompt: Token ids of the prompt.
        stops: Stop strings.
        chat: The answer is a chat message: reasoning goes to a channel of its own, tool calls are read, and a space
            at its very beginning is dropped. Else it continues the prompt's text to the letter.
        tools: What may be called; where there are none, a call is text.
        parallel: Whether a second call may follow the first. If not, the answer ends with the first.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompt: Sequence[int],
        stops: Sequence[str],
        *,
        chat: bool,
        tools: Sequence[dict[str, Any]] = (),
        parallel: bool = True,
    ) -> None:
        self._detokenizer = tokenizer.detokenizer
        self._stops = StopScanner(stops)
        self._machine: Any = make_text_state_machine(tokenizer)
        self._state: Any = self._machine.make_state(_initial_channel(tokenizer, prompt)) if chat else None
        self._reader = _reader(tokenizer, list(tools), parallel=parallel)
        self._reader.start(self.channel)
        if not chat:
            # Detokenizers drop a space before the first text; after the prompt's last token there is one already.
            self._detokenizer.add_token(prompt[-1])
            _ = self._detokenizer.last_segment

    @property
    def stopped(self) -> bool:
        """A stop string or the one allowed tool call was found; no text comes any more."""
        return self._stops.found is not None or self._reader.ended

    @property
    def stop(self) -> str | None:
        """The stop string that was found."""
        return self._stops.found

    @property
    def channel(self) -> Channel:
        """The channel of text that comes now."""
        return _channel(self._state[0]) if self._state is not None else "normal"

    def add(self, token: int) -> list[Piece]:
        """Pieces that a token completes: none, one, or several where it ends one channel and begins another.

        While a tool call is not complete, an empty one of channel `tool`.
        """
        self._detokenizer.add_token(token)
        pieces = self._pieces(self._stops.add(self._detokenizer.last_segment))
        if len(pieces) > 1:
            pieces = joined(pieces)
        return pieces or ([Piece("tool", "")] if self._reader.gathering else [])

    def finish(self, *, complete: bool = False) -> list[Piece]:
        """What was held back until now: half a character, half a stop string, half a channel mark, half a call.

        Args:
            complete: The model itself ended the answer.
        """
        pieces: list[Piece] = []
        if not self.stopped:
            self._detokenizer.finalize()
            pieces += self._pieces(self._stops.add(self._detokenizer.last_segment))
            pieces += self._pieces(self._stops.finish())
        if self._state is not None:
            self._state, held, _ = self._machine.flush(self._state)
            pieces += self._reader.add(self.channel, held)
        pieces += self._reader.finish(complete=complete and self._stops.found is None)
        return joined(pieces)

    def _pieces(self, text: str) -> list[Piece]:
        if not text:
            return []
        if self._state is None:
            return [Piece("normal", text)]
        self._state, segments = self._machine.split(self._state, text)
        if len(segments) == 1:  # nearly always: no mark in it
            state, part = segments[0]
            return self._reader.add(_channel(state), part) if part else []
        pieces: list[Piece] = []
        for place, (state, part) in enumerate(segments):
            if place:  # a mark was between this segment and the one before
                pieces += self._reader.switch(_channel(state))
            pieces += self._reader.add(_channel(state), part)
        return pieces


def _reader(tokenizer: Any, tools: list[dict[str, Any]], *, parallel: bool) -> CallReader:
    parse = tokenizer.tool_parser if tools else None
    begin, end = tokenizer.tool_call_start or "", tokenizer.tool_call_end or ""
    return CallReader(parse and (lambda text: parse(text, tools)), begin, end, parallel=parallel)


def _channel(state: str) -> Channel:
    """A few response formats have states of their own; their text is the answer's."""
    return cast("Channel", state) if state in {"reasoning", "tool"} else "normal"


def _initial_channel(tokenizer: Any, prompt: Sequence[int]) -> str:
    """Some templates end the prompt inside the reasoning; then the answer begins there."""
    if tokenizer.response_initial_state:
        return str(tokenizer.response_initial_state)
    if not tokenizer.has_thinking:
        return "normal"
    tokens = list(prompt)
    begins, ends = tokenizer.rfind_think_start(tokens), tokenizer.rfind_think_end(tokens)
    return "reasoning" if begins > ends else "normal"
