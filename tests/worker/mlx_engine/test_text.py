"""Tokens to text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.utils import load_tokenizer

from stoker.ipc.messages import ToolCall
from stoker.worker.calls import Piece, joined
from stoker.worker.mlx_engine.text import StopScanner, TextStream
from tests.fakes.tiny_models import token_id


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Any:
    """Of bytes, with `<tool_call>` marks."""
    return load_tokenizer(tiny_llama)


class Thinking:
    """The tokenizer with reasoning marks of its own."""

    has_thinking = True
    think_start, think_end = "<think>", "</think>"

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def rfind_think_start(self, tokens: list[int]) -> int:
        return bytes(tokens).rfind(b"<think>")

    def rfind_think_end(self, tokens: list[int]) -> int:
        return bytes(tokens).rfind(b"</think>")


def stream(
    tokenizer: Any, stops: tuple[str, ...] = (), *, chat: bool = True, prompt: bytes = b"x", **tools: Any
) -> TextStream:
    return TextStream(tokenizer, list(prompt), stops, chat=chat, **tools)


def heard(text: TextStream, data: bytes) -> list[list[Piece]]:
    """What each byte brought, and the end."""
    return [*(text.add(token) for token in data), text.finish()]


def shown(pieces: list[list[Piece]]) -> str:
    return "".join(piece.text for step in pieces for piece in step)


def test_characters_come_whole(tokenizer: Any) -> None:
    """A character of several tokens comes with its last one, never in halves."""
    pieces = heard(stream(tokenizer), "aß€🔥.".encode())

    assert [[piece.text for piece in step] for step in pieces] == [
        ["a"], [], ["ß"], [], [], ["€"], [], [], [], ["🔥"], ["."], []
    ]  # fmt: skip


def test_half_a_character_at_the_end(tokenizer: Any) -> None:
    """An answer cut inside a character ends with a replacement character, once."""
    assert shown(heard(stream(tokenizer), "a🔥".encode()[:-1])) == "a\ufffd"


@pytest.mark.parametrize("chat", [True, False])
def test_stop_string_across_tokens(tokenizer: Any, chat: bool) -> None:
    """A stop string that spans tokens ends the text before it, no part of it was shown, and nothing follows."""
    text = stream(tokenizer, ("END", "\n\n"), chat=chat)
    pieces = heard(text, b"one ENtwo E.ENDthree")

    assert shown(pieces) == "one ENtwo E."
    assert text.stopped


def test_beginning_of_a_stop_string_is_held_back_and_given_at_the_end(tokenizer: Any) -> None:
    """What may become a stop string waits; at the end it was none and is shown."""
    text = stream(tokenizer, ("END",))
    pieces = heard(text, b"the EN")

    assert [step[0].text for step in pieces if step] == ["t", "h", "e", " ", "EN"]
    assert not text.stopped


@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.integers(1, 20))
def test_scanner_agrees_with_search(text: str, stops: list[str], size: int) -> None:
    """However the text is cut, all up to the stop string that is complete first is shown, and nothing after it."""
    scanner = StopScanner(stops)
    out = "".join(scanner.add(character) for character in text)
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    first = text[: min(ends)] if ends else text

    assert (scanner.found is not None) is bool(ends)
    if not ends:
        assert out + scanner.finish() == text
        return
    longest = max((stop for stop in stops if first.endswith(stop)), key=len)
    assert out == first[: -len(longest)]
    assert scanner.add("more") == ""


def test_empty_stop_strings_stop_nothing(tokenizer: Any) -> None:
    """An empty stop string is ignored."""
    assert shown(heard(stream(tokenizer, ("",)), b"text")) == "text"


LOOK = ({"type": "function", "function": {"name": "look", "parameters": {}}},)
CALL = b'<tool_call>{"name": "look", "arguments": {"at": "fire"}}</tool_call>'
CALLED = Piece("tool", "", (ToolCall(name="look", arguments='{"at": "fire"}'),))


def test_tool_call_comes_once_and_complete(tokenizer: Any) -> None:
    """A call's text is in no channel; while it comes there are empty pieces, and with its last character the call."""
    steps = heard(stream(tokenizer, tools=LOOK), b"so " + CALL + b" ok")
    inside = steps[3 + len("<tool_call>") : 3 + len(CALL) - 1]

    assert all(step == [Piece("tool", "")] for step in inside)
    assert steps[3 + len(CALL) - 1] == [CALLED]
    assert [piece for step in steps for piece in step if piece.text or piece.calls] == [
        *(Piece("normal", letter) for letter in "so "), CALLED, Piece("normal", " o"), Piece("normal", "k")
    ]  # fmt: skip


def test_without_tools_a_call_is_text(tokenizer: Any) -> None:
    """A model that calls what it was not offered has said a text, marks and all."""
    assert shown(heard(stream(tokenizer), b"so " + CALL + b" ok")) == "so " + CALL.decode() + " ok"
    assert shown(heard(stream(tokenizer), CALL[:-5])) == CALL[:-5].decode()


def test_marks_that_are_one_token(tokenizer: Any) -> None:
    """A mark that is a single token begins a call too."""
    text = stream(tokenizer, tools=LOOK)
    pieces = [*text.add(token_id("<tool_call>")), *text.add(ord("f"))]

    assert pieces == [Piece("tool", ""), Piece("tool", "")]
    assert text.channel == "tool"


def test_a_stop_string_inside_a_call_leaves_text(tokenizer: Any) -> None:
    """A call that a stop string cuts is text up to there, even if what is left could be parsed."""
    text = stream(tokenizer, ("</tool",), tools=LOOK)
    pieces = [*(text.add(token) for token in CALL), text.finish(complete=True)]

    assert shown(pieces) == CALL[: -len("</tool_call>")].decode()
    assert not any(piece.calls for step in pieces for piece in step)


def test_one_call_only(tokenizer: Any) -> None:
    """Where calls may not be parallel, the first one ends the answer."""
    text = stream(tokenizer, tools=LOOK, parallel=False)
    pieces = [piece for step in heard(text, CALL + b"\n" + CALL + b"more") for piece in step]

    assert [piece for piece in pieces if piece.text or piece.calls] == [CALLED]
    assert text.stopped
    assert text.stop is None


def test_reasoning_that_the_prompt_began(tokenizer: Any) -> None:
    """Where the prompt ends inside the reasoning, the answer begins there."""
    text = stream(Thinking(tokenizer), prompt=b"</think>user: hm?<think>\n")
    pieces = [piece for step in heard(text, b"hm</think>yes") for piece in step]

    assert joined(pieces) == [Piece("reasoning", "hm"), Piece("normal", "yes")]


def test_reasoning_that_the_answer_begins(tokenizer: Any) -> None:
    """A prompt that closed its reasoning leaves the answer normal until the mark comes."""
    text = stream(Thinking(tokenizer), prompt=b"<think></think>")
    pieces = [piece for step in heard(text, b"<think>hm</think>yes") for piece in step]

    assert joined(pieces) == [Piece("reasoning", "hm"), Piece("normal", "yes")]


def test_half_a_mark_at_the_end_is_text(tokenizer: Any) -> None:
    """An answer that ends inside a mark shows what it had of it."""
    assert shown(heard(stream(tokenizer), b"a <tool_")) == "a <tool_"


def test_text_prompt_continues_to_the_letter(tokenizer: Any) -> None:
    """After a plain text prompt a leading space stays, and marks are text; in a chat the space goes."""
    data = b" <tool_call>x"

    assert shown(heard(stream(tokenizer, chat=False), data)) == " <tool_call>x"
    assert heard(stream(tokenizer), b" x")[1] == [Piece("normal", "x")]


@given(data=st.binary(min_size=1, max_size=30), cut=st.integers(0, 30))
def test_replay_is_exact(tokenizer: Any, data: bytes, cut: int) -> None:
    """A stream that heard the first tokens silently gives for the others what the first stream gave."""
    full = heard(stream(tokenizer, ("ab",)), data)
    resumed = stream(tokenizer, ("ab",))
    for token in data[:cut]:
        resumed.add(token)

    assert heard(resumed, data[cut:]) == full[min(cut, len(data)) :]
