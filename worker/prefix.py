"""Which tokens every chat with the same system prompt and tools shares.

The prefix can't be had by rendering the system message alone: templates put tools, dates and generation tails in
places of their own, and tokenizers merge across the boundary to the user's text. So chats with different user texts
are rendered, and what all of them begin with is the prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeAlias

Render: TypeAlias = Callable[[str], Sequence[int]]
"""Token ids of the chat with this user text."""

PROBES = ("a", "Z9 ?")
"""Two texts that begin with nothing in common, and merge with nothing before them."""

WIDE_PROBES = (*PROBES, " x", "\nx", "\n\nx", "1", "é", "<", "{", "", "'s", "-", "日本")
"""Texts whose beginnings do merge with a template's own text, in one tokenizer or another: spaces and newlines with
newlines before them, digits and brackets with delimiters."""

POOR_SHARE = 0.5
"""Below this share of the rendered chat, warming the prefix gains so little that it is worth a note."""


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """What chats share.

    Attributes:
        tokens: The prefix; empty where nothing is shared.
        total: Length of the shortest rendered chat, for comparison.
    """

    tokens: tuple[int, ...]
    total: int

    @property
    def note(self) -> str | None:
        """What a user should know of a prefix that helps little."""
        if len(self.tokens) >= POOR_SHARE * self.total:
            return None
        return (
            f"only {len(self.tokens)} of {self.total} tokens are shared by all chats with this system prompt: "
            "the chat template puts the rest behind the user's text"
        )


def shared_prefix(render: Render, *, exact: bool) -> SharedPrefix:
    """Find the prefix.

    Args:
        render: Renders a chat with the system prompt and tools in question.
        exact: The KV cache can't be trimmed and serves whole prefixes only: take one that any user text leaves
            whole. Else the longest is taken, of which an odd user text may share a token or two less.
    """
    chats = [render(text) for text in (WIDE_PROBES if exact else PROBES)]
    shared = chats[0]
    for chat in chats[1:]:
        shared = shared[: common_length(shared, chat)]
    return SharedPrefix(tuple(shared), min(len(chat) for chat in chats))


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
