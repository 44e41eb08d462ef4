"""Which tokens all chats share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.utils import load_tokenizer

from stoker.worker.chat import chat_tokens
from stoker.worker.prefix import common_length, shared_prefix


def merging(text: str) -> list[int]:
    """A tokenizer of characters that merges newlines into one token, as many do."""
    tokens: list[int] = []
    for character in text:
        if character == "\n" and tokens and tokens[-1] >= 1000:
            tokens[-1] += 1
        else:
            tokens.append(1000 if character == "\n" else ord(character))
    return tokens


def chatml(user: str) -> list[int]:
    return merging(f"system\nbe kind\nuser\n{user}\nassistant\n")


def test_prefix_is_all_that_both_probes_share() -> None:
    """For a KV that can be cut, the prefix goes up to the user's text."""
    prefix = shared_prefix(chatml, exact=False)

    assert list(prefix.tokens) == merging("system\nbe kind\nuser\n")
    assert prefix.total == len(chatml("a"))
    assert prefix.note is None


@pytest.mark.parametrize("user", ["\nx", "\n\nx", "1", "plain", ""])
def test_exact_prefix_survives_merges(user: str) -> None:
    """For a KV that can't be cut, the prefix is whole in chats whose text merges with the template's."""
    prefix = shared_prefix(chatml, exact=True)

    assert tuple(chatml(user)[: len(prefix.tokens)]) == prefix.tokens
    assert list(prefix.tokens) == merging("system\nbe kind\nuser")


def by_number(text: str) -> list[str]:
    """A tokenizer that takes digits in a row as one token, and other characters as they are."""
    return re.findall(r"[0-9]+|[^0-9]", text)


def test_exact_prefix_survives_what_few_texts_do() -> None:
    """Texts whose beginning merges with the template's own text are tried too, where no cut is certain."""
    numbers: dict[str, int] = {}

    def render(user: str) -> list[int]:
        return [numbers.setdefault(piece, len(numbers)) for piece in by_number(f"be kind, turn 1{user}!")]

    prefix = shared_prefix(render, exact=True)

    assert tuple(render("12")[: len(prefix.tokens)]) == prefix.tokens
    assert len(prefix.tokens) == len(by_number("be kind, turn "))


def test_template_that_shares_little_gets_a_note() -> None:
    """Where the template puts the system text behind the user's, the figures are told."""
    prefix = shared_prefix(lambda user: merging(f"[{user} be very kind to everyone]"), exact=False)

    assert list(prefix.tokens) == [ord("[")]
    assert prefix.note is not None
    assert f"only 1 of {prefix.total} tokens" in prefix.note


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_common_length_is_the_longest(first: list[int], second: list[int]) -> None:
    """Up to the common length sequences are equal, and there they end or differ."""
    length = common_length(first, second)

    assert first[:length] == second[:length]
    assert first[length : length + 1] != second[length : length + 1] or length in {len(first), len(second)}


@settings(max_examples=60, deadline=None)
@given(user=st.text(max_size=30))
def test_any_user_text_keeps_the_prefix(tiny_llama: Path, user: str) -> None:
    """In a real template and tokenizer, a chat with any user text begins with the prefix."""
    tokenizer = _TOKENIZERS.setdefault(tiny_llama, load_tokenizer(tiny_llama))

    def render(text: str) -> list[int]:
        return chat_tokens(tokenizer, [{"role": "system", "content": "be kind"}, {"role": "user", "content": text}])

    for exact in (True, False):
        prefix = shared_prefix(render, exact=exact).tokens
        assert tuple(render(user)[: len(prefix)]) == prefix


_TOKENIZERS: dict[Path, object] = {}
