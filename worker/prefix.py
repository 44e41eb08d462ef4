"""Which tokens every chat with the same system prompt and tools shares.

The prefix can't be had by rendering the system message alone: templates put tools, dates and generation tails in
places of their own, and tokenizers merge across the boundary to the user's text. So chats with different user texts
are rendered, and what all of them begin with is the prefix.

A KV cache that can be trimmed takes the longest such prefix; an odd user text then shares a token or two less, and
the rest is trimmed away. One that can't is of use only whole, so its prefix has to survive any user text. That is
certain after a token that the tokenizer cuts out of the text before it merges anything, such as `<|im_start|>`, and
nearly every template has one just before the user's text. Where there is none, texts that merge with everything known
are tried, and a few tokens more are given up. Whatever prefix is stored, a request that doesn't begin with it doesn't
use it: a wrong guess here costs time, never a token of the answer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from .chat import chat_tokens
from .errors import InvalidPrompt

Render: TypeAlias = Callable[[str], Sequence[int]]
"""Token ids of the chat with this user text."""

PROBES = ("a", "Z9 ?")
"""Two texts that begin with nothing in common, and merge with nothing before them."""

WIDE_PROBES = (*PROBES, " x", "\nx", "\n\nx", "1", "é", "<", "{", "", "'s", "-", "日本", "\u0301", "\u0338")
"""Texts whose beginnings do merge with a template's own text, in one tokenizer or another: spaces and newlines with
newlines before them, digits and brackets with delimiters, accents with letters and signs where text is composed."""

POOR_SHARE = 0.5
"""Below this share of the rendered chat, warming the prefix gains so little that it is worth a note."""

NEAR = 16
"""Tokens between a certain cut and the user's text that are worth the certainty: less than one forward's overhead."""

SPARE = 4
"""Tokens given up where no cut is certain: merges may change a few tokens before them too, in a chain."""


@dataclass(frozen=True, slots=True)
class TemplateDate:
    """How a chat template tells what day it is.

    Attributes:
        argument: The template argument that sets the date instead of the clock, if there is one.
        time_of_day: It tells that too.
    """

    argument: str | None
    time_of_day: bool

    @classmethod
    def of(cls, template: str) -> TemplateDate | None:
        """None where the template doesn't ask the clock."""
        if "strftime_now" not in template:
            return None
        formats = [text for _, text in re.findall(r"strftime_now\(\s*(['\"])(.*?)\1", template)]
        assigned = re.findall(r"set\s+(\w+)\s*=\s*strftime_now\(", template)
        tested = set(re.findall(r"\b(\w+)\s+is\s+(?:not\s+)?(?:un)?defined\b", template))
        defaulted = re.findall(r"\b(\w+)\s*\|\s*default\(\s*strftime_now\(", template)
        arguments = [*(name for name in assigned if name in tested), *defaulted]
        return cls(next(iter(arguments), None), any(re.search(r"%[-#]?[HIMSTXcfpRr]", text) for text in formats))

    @property
    def note(self) -> str:
        """What a user should know of a prefix with a date in it."""
        when = "with the time of day" if self.time_of_day else "at midnight"
        remedy = f"; set the template argument {self.argument} to pin it" if self.argument else ""
        again = "" if self.time_of_day else ", and is warmed again then"
        return f"it changes {when}, because the chat template tells the date{again}{remedy}"


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """What chats share.

    Attributes:
        tokens: The prefix; empty where nothing is shared.
        total: Length of the shortest rendered chat, for comparison.
        lasting: How many of its tokens stay the same on another day; None: all of them.
        followed: How many of them a chat's second turn still begins with; None: all of them.
        date: How the template tells the date, if it does; it may do so elsewhere than in the prefix.
        without_tools: There are tools, and the template doesn't print them.
    """

    tokens: tuple[int, ...]
    total: int
    lasting: int | None = None
    followed: int | None = None
    date: TemplateDate | None = None
    without_tools: bool = False

    @property
    def note(self) -> str | None:
        """What a user should know of a prefix that helps little, or not for long."""
        return "; ".join(self._notes()) or None

    def _notes(self) -> list[str]:
        size = len(self.tokens)
        notes = []
        if size < POOR_SHARE * self.total:
            notes.append(
                f"only {size} of {self.total} tokens are shared by all chats with this system prompt: "
                "the chat template puts the rest behind the user's text"
            )
        if self.followed is not None and self.followed < POOR_SHARE * size:
            notes.append(
                f"only {self.followed} of {size} tokens are shared by a chat's later turns: "
                "the chat template moves the rest to the last message"
            )
        if self.without_tools:
            notes.append("the chat template leaves the tools out")
        if self.date is not None and self.lasting is not None:
            notes.append(f"from token {self.lasting} on {self.date.note}")
        return notes


def chat_prefix(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    template_args: Mapping[str, Any] | None = None,
    *,
    exact: bool,
) -> SharedPrefix:
    """What all chats share that begin with these messages and tools.

    Args:
        tokenizer: mlx-lm's.
        messages: System messages; none is allowed.
        tools: As the template takes them.
        template_args: As in `chat_tokens`.
        exact: The KV cache can't be trimmed.

    Raises:
        InvalidPrompt: The template refuses such a chat.
    """
    chats = _Chats(tokenizer, messages, tools, template_args or {})
    found = shared_prefix(chats.render, exact=exact, isolated=isolated_tokens(tokenizer) if exact else None)
    tokens, template = found.tokens, chats.template
    date = TemplateDate.of(template)
    return replace(
        found,
        lasting=_kept(tokens, lambda: chats.on_another_day(template)) if date else None,
        followed=_kept(tokens, chats.second_turn),
        date=date,
        without_tools=bool(tools) and chats.without_tools(),
    )


@dataclass(frozen=True, slots=True)
class _Chats:
    """Chats that begin alike."""

    tokenizer: Any
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]]
    arguments: Mapping[str, Any]

    @property
    def template(self) -> str:
        """The text of the chat template; empty where it is none: some models' are programs."""
        template = self.arguments.get("chat_template") or getattr(self.tokenizer, "chat_template", None)
        return template if isinstance(template, str) else ""

    def render(self, user: str) -> list[int]:
        return self._rendered((user,), self.tools, self.arguments)

    def second_turn(self) -> list[int]:
        return self._rendered((PROBES[0], "b", PROBES[1]), self.tools, self.arguments)

    def without_tools(self) -> bool:
        try:
            return self._rendered(PROBES[:1], (), self.arguments) == self.render(PROBES[0])
        except InvalidPrompt:
            return False  # a template that demands tools prints them

    def on_another_day(self, template: str) -> list[int]:
        return self._rendered(PROBES[:1], self.tools, {**self.arguments, "chat_template": ANOTHER_DAY + template})

    def _rendered(
        self, turns: Sequence[str], tools: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]
    ) -> list[int]:
        roles = itertools.cycle(("user", "assistant"))
        spoken = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
        return chat_tokens(self.tokenizer, [*self.messages, *spoken], tools, arguments)


def shared_prefix(render: Render, *, exact: bool, isolated: Collection[int] | None = None) -> SharedPrefix:
    """Find the prefix.

    Args:
        render: Renders a chat with the system prompt and tools in question.
        exact: The KV cache can't be trimmed and serves whole prefixes only: take one that any user text leaves
            whole. Else the longest is taken, of which an odd user text may share a token or two less.
        isolated: Tokens after which a cut is certain, for `exact`; see `isolated_tokens`. None: not known, and
            `WIDE_PROBES` are all that is tried.
    """
    chats = [render(text) for text in PROBES]
    if exact:
        chats.append(render(""))  # some templates leave an empty message out
        certain = _certain_cut(_common(chats), isolated or ())
        if certain is not None:
            return SharedPrefix(certain, min(len(chat) for chat in chats))
        chats += [render(text) for text in WIDE_PROBES if text not in {*PROBES, ""}]
    shared = _common(chats)
    if exact and isolated is not None:
        shared = shared[: max(len(shared) - SPARE, 0)]
    return SharedPrefix(shared, min(len(chat) for chat in chats))


def isolated_tokens(tokenizer: Any) -> frozenset[int]:
    """Tokens that a tokenizer cuts out of a text before it normalises or merges anything, whatever comes next.

    Not among them are added tokens that are matched in the normalised text, that need a word's end, or that begin
    another added token (there are tokenizers with one for each number of newlines).
    """
    added = dict(getattr(tokenizer, "added_tokens_decoder", None) or {})
    texts = sorted(str(token) for token in added.values())
    begun = {first for first, second in itertools.pairwise(texts) if second.startswith(first)}
    return frozenset(
        number
        for number, token in added.items()
        if not (token.normalized or token.single_word or str(token) in begun)
    )


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


ANOTHER_DAY = "{% macro strftime_now(format) %}{{ format }}{% endmacro %}"
"""Put before a template, it is what any day tells that isn't today: no date looks like its format."""


def _common(chats: Sequence[Sequence[int]]) -> tuple[int, ...]:
    shared = chats[0]
    for chat in chats[1:]:
        shared = shared[: common_length(shared, chat)]
    return tuple(shared)


def _certain_cut(shared: tuple[int, ...], isolated: Collection[int]) -> tuple[int, ...] | None:
    """Up to the last isolated token, if that isn't far back."""
    near = range(len(shared), max(len(shared) - NEAR, 0), -1)
    return next((shared[:end] for end in near if shared[end - 1] in isolated), None)


def _kept(tokens: tuple[int, ...], render: Callable[[], Sequence[int]]) -> int | None:
    """How many of the tokens another chat begins with; None for all of them, and where the template refuses it."""
    try:
        kept = common_length(tokens, render())
    except InvalidPrompt:
        return None
    return kept if kept < len(tokens) else None
