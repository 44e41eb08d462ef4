"""What chats share, in the templates and tokenizers of the families that models come in."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stoker.worker.chat import chat_tokens
from stoker.worker.prefix import (
    NEAR,
    SharedPrefix,
    TemplateDate,
    chat_prefix,
    common_length,
    isolated_tokens,
)
from tests.fakes.chat_families import FAMILIES, SPECIALS, TEMPLATES, TOKENIZERS, Family

SYSTEM = ({"role": "system", "content": "You keep the fire, read before you write, and never guess. " * 3},)
TOOLS = ({"type": "function", "function": {"name": "poke", "parameters": {"type": "object"}}},)
DATED = "newlines before each text, and the date"
MOVING = "tools and system text in the last message"
DATED_TEMPLATE = TEMPLATES[DATED]

ODD = (
    *(
        "",
        " ",
        "\n",
        "\n\n",
        "\n\n\nx",
        " x",
        "  x",
        "\t",
        "\r\n",
        "\u00a0x",
        "\u200d",
        "\u0301x",
        "\u0338",
        "\ufe0f",
    ),
    *("1", "12", "a", "é", "日本", "🙂", "👩‍🚀", "'s", "-", "<", "{", "=", "/", "x\n\n"),
    *SPECIALS,
    "<image>",
    '[{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBOR"}}]',
    "/no_think",
)
TEXTS = st.one_of(
    st.sampled_from(ODD),
    st.lists(st.sampled_from(ODD), max_size=4).map("".join),
    st.text(max_size=12),
    st.builds(str.__add__, st.sampled_from(ODD), st.text(max_size=5)),
)
CONTENTS = st.one_of(
    TEXTS,
    st.lists(TEXTS.map(lambda text: {"type": "text", "text": text}), max_size=3),
)
"""A user's message as a text, and as a list of parts."""


@functools.cache
def prefix_of(family: Family, *, exact: bool, tools: bool) -> SharedPrefix:
    return chat_prefix(family.load(), SYSTEM, TOOLS if tools else (), exact=exact)


def rendered(family: Family, user: Any, *, tools: bool, **arguments: Any) -> tuple[int, ...]:
    chat = [*SYSTEM, {"role": "user", "content": user}]
    return tuple(chat_tokens(family.load(), chat, TOOLS if tools else (), arguments))


@settings(max_examples=1500, deadline=None)
@given(family=st.sampled_from(FAMILIES), user=CONTENTS, tools=st.booleans())
# Found by trying 100,000 texts: without tokens given up, and without regard to tokens that begin others.
@example(family=Family(MOVING, "metaspace: spaces are letters"), user="x", tools=True)
@example(family=Family(MOVING, "gemma: each number of newlines is a token"), user="\n=", tools=True)
def test_exact_prefix_survives_any_user_text(family: Family, user: Any, tools: bool) -> None:
    """For a KV that can't be cut, the prefix is whole, and not all, of a chat with any user text."""
    tokens = prefix_of(family, exact=True, tools=tools).tokens
    chat = rendered(family, user, tools=tools)

    assert chat[: len(tokens)] == tokens
    assert len(tokens) < len(chat)


@settings(max_examples=500, deadline=None)
@given(family=st.sampled_from(FAMILIES), user=CONTENTS, tools=st.booleans())
def test_longest_prefix_is_shared_but_for_its_end(family: Family, user: Any, tools: bool) -> None:
    """For a KV that can be cut, a chat with any user text shares the longest prefix up to the exact one, at least."""
    longest = prefix_of(family, exact=False, tools=tools).tokens
    exact = prefix_of(family, exact=True, tools=tools).tokens

    assert longest[: len(exact)] == exact
    assert common_length(longest, rendered(family, user, tools=tools)) >= len(exact)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"{family.template}-{family.tokenizer[:5]}")
def test_certainty_costs_a_few_tokens(family: Family) -> None:
    """In every family, the exact prefix is at most `NEAR` tokens shorter than the longest."""
    longest = prefix_of(family, exact=False, tools=True).tokens
    exact = prefix_of(family, exact=True, tools=True).tokens

    assert len(longest) - NEAR <= len(exact) <= len(longest)


@settings(max_examples=100, deadline=None)
@given(family=st.sampled_from(FAMILIES), thinking=st.booleans(), user=TEXTS)
@example(family=FAMILIES[0], thinking=True, user="\n\n")
def test_template_arguments_are_part_of_the_prefix(family: Family, thinking: bool, user: str) -> None:
    """With a thinking switch set, chats that set it likewise share the prefix."""
    arguments = {"enable_thinking": thinking}
    tokens = chat_prefix(family.load(), SYSTEM, TOOLS, arguments, exact=True).tokens

    assert rendered(family, user, tools=True, **arguments)[: len(tokens)] == tokens


def test_switch_that_changes_the_prefix_makes_another() -> None:
    """Where a template argument changes the system text, the prefixes with and without it differ."""
    family = Family("a thinking switch", next(iter(TOKENIZERS)))
    on, off = (
        chat_prefix(family.load(), SYSTEM, (), {"enable_thinking": value}, exact=False).tokens
        for value in (True, False)
    )

    assert common_length(on, off) < min(len(on), len(off)) / 2


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_later_turns_that_share_little_get_a_note(tokenizer: str) -> None:
    """A template that moves system text and tools to the last message is told, with figures."""
    prefix = prefix_of(Family(MOVING, tokenizer), exact=False, tools=True)

    assert prefix.followed is not None
    assert prefix.followed < 5
    assert prefix.note is not None
    assert f"only {prefix.followed} of {len(prefix.tokens)} tokens are shared by a chat's later turns" in prefix.note


def test_template_that_leaves_tools_out_gets_a_note() -> None:
    """Where tools are given and the template doesn't print them, the note says so; without tools it has no reason."""
    tokenizer = Family("a thinking switch", next(iter(TOKENIZERS))).load()
    deaf = {"chat_template": TEMPLATES["plain words only"].replace("in tools or []", "in []")}
    notes = [chat_prefix(tokenizer, SYSTEM, tools, deaf, exact=False).note for tools in (TOOLS, ())]

    assert notes == ["the chat template leaves the tools out", None]
    assert chat_prefix(tokenizer, SYSTEM, TOOLS, exact=False).note is None


# -- dates -------------------------------------------------------------------------------------------------


def test_date_is_found_in_the_prefix() -> None:
    """A template that tells the date is told, with the place, and with the argument that pins it."""
    prefix = prefix_of(Family(DATED, next(iter(TOKENIZERS))), exact=False, tools=True)

    assert prefix.lasting is not None
    assert 5 < prefix.lasting < 30
    assert prefix.note == (
        f"from token {prefix.lasting} on it changes at midnight, because the chat template tells the date, and is "
        "warmed again then; set the template argument date_string to pin it"
    )


def test_pinned_date_needs_no_note() -> None:
    """With the date set by its argument, all of the prefix lasts."""
    family = Family(DATED, next(iter(TOKENIZERS)))
    prefix = chat_prefix(family.load(), SYSTEM, TOOLS, {"date_string": "26 Jul 2024"}, exact=False)

    assert (prefix.lasting, prefix.note) == (None, None)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ messages }}", None),
        ("{{ strftime_now('%Y-%m-%d') }}", TemplateDate(None, time_of_day=False)),
        ('{{ strftime_now("%H:%M") }}', TemplateDate(None, time_of_day=True)),
        ("{% set today = strftime_now('%d %B') %}", TemplateDate(None, time_of_day=False)),
        ("{% if day is not defined %}{% set day = strftime_now('%d') %}", TemplateDate("day", time_of_day=False)),
        ("{{ day | default(strftime_now('%d')) }}", TemplateDate("day", time_of_day=False)),
        (DATED_TEMPLATE, TemplateDate("date_string", time_of_day=False)),
    ],
)
def test_dates_are_found_in_templates(template: str, expected: TemplateDate | None) -> None:
    """How a template asks the clock is read from its text: what for, and which argument is taken instead."""
    assert TemplateDate.of(template) == expected


def test_time_of_day_is_told_apart() -> None:
    """A template that tells the time of day makes a prefix that doesn't last, and its note says so."""
    assert "with the time of day" in TemplateDate(None, time_of_day=True).note


# -- tokens that a cut is certain after ----------------------------------------------------------------------


def test_special_tokens_are_isolated() -> None:
    """A template's special tokens are cut out before any merge."""
    tokenizer = Family(DATED, next(iter(TOKENIZERS))).load()

    assert {tokenizer.convert_tokens_to_ids(name) for name in SPECIALS} <= isolated_tokens(tokenizer)


def test_token_that_begins_another_is_not_isolated() -> None:
    """Where each number of newlines is a token, the text behind can make a longer one of it; the longest it can't."""
    tokenizer = Family(DATED, "gemma: each number of newlines is a token").load()
    newlines = [tokenizer.convert_tokens_to_ids("\n" * count) in isolated_tokens(tokenizer) for count in (1, 2, 3)]

    assert newlines == [False, False, True]


def test_tokenizer_without_added_tokens_isolates_none() -> None:
    """A tokenizer that doesn't tell its added tokens is taken to have none."""
    assert isolated_tokens(object()) == frozenset()
