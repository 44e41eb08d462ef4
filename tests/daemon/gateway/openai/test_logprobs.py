"""Log probabilities, in both shapes."""

from __future__ import annotations

import math

import msgspec
from openai.types.chat.chat_completion import ChoiceLogprobs
from openai.types.completion_choice import Logprobs

from stoker.daemon.gateway.openai.logprobs import TextOffsets, chat_logprobs, text_logprobs, token_text
from stoker.ipc.messages import Likely, TokenLogprob
from tests.fakes.openai_requests import checked


def likely(text: bytes, logprob: float) -> Likely:
    """A token that might have been."""
    return Likely(token=1, bytes=tuple(text), logprob=logprob)


def chosen(text: bytes, logprob: float, *top: Likely) -> TokenLogprob:
    """A token that was."""
    return TokenLogprob(token=1, bytes=tuple(text), logprob=logprob, top=top)


def test_chat_shape_is_the_sdks() -> None:
    """Tokens come with their text, their bytes, and the likeliest at their place."""
    shape = msgspec.to_builtins(chat_logprobs([chosen(b"Hi", -0.5, likely(b"Hi", -0.5), likely(b"Ho", -1.5))]))
    model = checked(ChoiceLogprobs, msgspec.json.decode(msgspec.json.encode(shape)))

    assert model.content is not None
    assert (model.content[0].token, model.content[0].bytes, model.content[0].logprob) == ("Hi", [72, 105], -0.5)
    assert [(top.token, top.logprob) for top in model.content[0].top_logprobs] == [("Hi", -0.5), ("Ho", -1.5)]
    assert list(shape) == ["content", "refusal"]


def test_impossible_token_has_a_number() -> None:
    """Minus infinity, which JSON can't say, is OpenAI's -9999."""
    (got,) = chat_logprobs([chosen(b"a", -math.inf)]).content

    assert got.logprob == -9999.0


def test_part_of_a_character_is_told_by_its_bytes() -> None:
    """Two different halves of characters don't look the same."""
    assert token_text("é".encode()) == "é"
    assert token_text(b"\xf0\x9f") == "bytes:\\xf0\\x9f"


def test_text_shape_is_the_sdks() -> None:
    """The old shape has four lists, and the chosen token among the likeliest."""
    given = [chosen(b"a", -2.0, likely(b"b", -0.1)), chosen(b"b", -0.1, likely(b"b", -0.1))]
    shape = msgspec.json.decode(msgspec.json.encode(text_logprobs(given, TextOffsets(), 1)))

    checked(Logprobs, shape)
    assert shape == {
        "tokens": ["a", "b"],
        "token_logprobs": [-2.0, -0.1],
        "top_logprobs": [{"a": -2.0, "b": -0.1}, {"b": -0.1}],
        "text_offset": [0, 1],
    }


def test_no_likeliest_were_asked_for() -> None:
    """With `logprobs: 0` only the chosen tokens are told."""
    assert text_logprobs([chosen(b"a", -1.0)], TextOffsets(), 0).top_logprobs is None


def test_offsets_count_characters_over_all_chunks() -> None:
    """A token's offset is in characters of the text, not in bytes, also where a character has two tokens."""
    offsets = TextOffsets()
    first = text_logprobs([chosen("éé".encode(), -1.0), chosen(b"\xf0\x9f", -1.0)], offsets, 0)
    second = text_logprobs([chosen(b"\x98\x80", -1.0), chosen(b"!", -1.0)], offsets, 0)

    assert (first.text_offset, second.text_offset) == ((0, 2), (2, 3))
