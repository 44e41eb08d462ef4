"""Tool calls in an answer's text."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.ipc.messages import ToolCall
from stoker.worker.calls import CallReader, Channel, Piece, joined, parsed_calls

ODD = [
    1,
    "text",
    None,
    True,
    [],
    [1],
    {},
    {"name": 1},
    {"name": ""},
    {"name": "f", "arguments": [1]},
    {"name": "\ud800"},
]


def read(reader: CallReader, *parts: tuple[Channel, str], complete: bool = True) -> list[Piece]:
    """What a reader makes of text in these channels, the first of which the answer begins in."""
    reader.start(parts[0][0])
    pieces = reader.add(*parts[0])
    for channel, text in parts[1:]:
        pieces += reader.switch(channel)
        pieces += reader.add(channel, text)
    return joined([*pieces, *reader.finish(complete=complete)])


def reader(*, end: str = ">", parallel: bool = True) -> CallReader:
    return CallReader(json.loads, "<", end, parallel=parallel)


def called(name: str) -> Piece:
    return Piece("tool", "", (ToolCall(name=name, arguments="{}"),))


@pytest.mark.parametrize("found", ODD, ids=repr)
def test_what_is_no_call_is_none(found: Any) -> None:
    """Whatever a parser returns that isn't a name with an object of arguments makes no call."""
    assert parsed_calls(lambda _: found, "") == ()
    assert parsed_calls(lambda _: [{"name": "f"}, found], "") == ()


@pytest.mark.parametrize("error", [ValueError, AttributeError, RecursionError, KeyError])
def test_a_parser_may_raise_anything(error: type[Exception]) -> None:
    """A parser that fails has found no call."""

    def parser(_: str) -> Any:
        raise error

    assert parsed_calls(parser, "") == ()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"a": 1}, '{"a": 1}'),
        ('{"a":1}', '{"a": 1}'),
        (None, "{}"),
        ({"city": "Zürich"}, '{"city": "Zürich"}'),
        ({"half": "\ud800"}, '{"half": "\\ud800"}'),
    ],
    ids=["object", "text of one", "none", "letters", "half a pair"],
)
def test_arguments_are_the_text_of_an_object(arguments: Any, text: str) -> None:
    """Arguments come as the JSON text of an object that can be sent, whatever the parser made of them."""
    (call,) = parsed_calls(lambda _: {"name": "f", "arguments": arguments}, "")

    assert call == ToolCall(name="f", arguments=text)
    assert msgspec.json.decode(msgspec.json.encode(call), type=ToolCall) == call


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"x"], ids=["nan", "set", "bytes"])
def test_arguments_that_are_no_json_make_no_call(value: Any) -> None:
    """Parsers that read Python literals find values that JSON hasn't."""
    assert parsed_calls(lambda _: {"name": "f", "arguments": {"a": value}}, "") == ()


def test_blanks_between_calls_are_left_out() -> None:
    """Only blanks between calls, and around them, are no text of the answer."""
    parts: list[tuple[Channel, str]] = [("tool", '{"name": "a"}'), ("normal", "\n"), ("tool", '{"name": "b"}')]

    assert read(reader(), *parts, ("normal", "\n\n")) == [called("a"), called("b")]
    assert read(reader(), ("normal", "\n"), *parts, ("normal", "\n x")) == [
        called("a"), called("b"), Piece("normal", "\n x")
    ]  # fmt: skip


def test_blanks_of_an_answer_without_calls_stay() -> None:
    """Blanks at the beginning, after reasoning and at the end are kept where no call follows."""
    pieces = read(reader(), ("reasoning", "hm"), ("normal", "\n\nyes\n"))

    assert pieces == [Piece("reasoning", "hm"), Piece("normal", "\n\nyes\n")]
    assert read(reader(), ("normal", " \n")) == [Piece("normal", " \n")]


def test_broken_call_is_text_with_its_marks() -> None:
    """A call that can't be parsed is given to the letter, and a later good one is still a call."""
    pieces = read(reader(), ("normal", "a\n"), ("tool", "{oh"), ("normal", "\nb"), ("tool", '{"name": "f"}'))

    assert pieces == [Piece("normal", "a\n<{oh>\nb"), called("f")]


def test_call_without_its_end_mark() -> None:
    """A call that the model left open is a call if the model ended the answer, and text if it was cut off."""
    parts: list[tuple[Channel, str]] = [("normal", "x"), ("tool", '{"name": "f"}')]

    assert read(reader(), *parts) == [Piece("normal", "x"), called("f")]
    assert read(reader(), *parts, complete=False) == [Piece("normal", 'x<{"name": "f"}')]
    assert read(reader(end=""), *parts, complete=False) == [Piece("normal", "x"), called("f")]


def test_only_the_first_call() -> None:
    """With one call allowed, the first of several is given, also of one text, and nothing after it."""
    single = reader(parallel=False)
    several = read(single, ("tool", '[{"name": "a"}, {"name": "b"}]'), ("normal", "x"), ("tool", '{"name": "c"}'))

    assert several == [called("a")]
    assert single.ended


@given(
    parts=st.lists(
        st.tuples(st.sampled_from(["normal", "reasoning", "tool"]), st.text("ab \n{}", max_size=6)), min_size=1
    )
)
def test_no_word_is_lost(parts: list[tuple[Channel, str]]) -> None:
    """Where nothing can be parsed, all text comes, in order, with the marks."""
    kept = [next(group) for _, group in itertools.groupby(parts, key=lambda part: part[0])]
    pieces = read(CallReader(lambda _: None, "<", ">"), *kept)
    said = "".join(f"<{text}>" if channel == "tool" else text for channel, text in kept)
    heard = "".join(piece.text for piece in pieces)

    assert heard in (said, said[:-1])  # at the answer's end the end mark never came
