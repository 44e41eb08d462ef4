"""Log probabilities in OpenAI's two shapes: of chats, and the older one of completions."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

import msgspec

from ....ipc.messages import Likely, TokenLogprob

FLOOR = -9999.0
"""OpenAI's word for "next to impossible"; JSON has none for minus infinity."""


class TopLogprob(msgspec.Struct, frozen=True):
    """A token that might have been chosen."""

    token: str
    logprob: float
    bytes: tuple[int, ...]


class ChosenLogprob(msgspec.Struct, frozen=True):
    """The token that was chosen, and the likeliest ones at its place."""

    token: str
    logprob: float
    bytes: tuple[int, ...]
    top_logprobs: tuple[TopLogprob, ...]


class ChatLogprobs(msgspec.Struct, frozen=True):
    """Log probabilities of a chat's content; `refusal` is always null."""

    content: tuple[ChosenLogprob, ...]
    refusal: None = None


class TextLogprobs(msgspec.Struct, frozen=True):
    """Log probabilities of a completion. `top_logprobs` is null if none were asked for."""

    tokens: tuple[str, ...]
    token_logprobs: tuple[float, ...]
    top_logprobs: tuple[dict[str, float], ...] | None
    text_offset: tuple[int, ...]


def token_text(data: Iterable[int]) -> str:
    r"""A token as text; one that is not whole characters as `bytes:\xe2\x80`, so that no two look the same."""
    raw = bytes(data)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def chat_logprobs(chosen: Iterable[TokenLogprob]) -> ChatLogprobs:
    """The shape of chat completions."""
    return ChatLogprobs(tuple(_chosen(each) for each in chosen))


def _chosen(given: TokenLogprob) -> ChosenLogprob:
    top = tuple(TopLogprob(token_text(each.bytes), _floored(each), each.bytes) for each in given.top)
    return ChosenLogprob(token_text(given.bytes), _floored(given), given.bytes, top)


def _floored(given: Likely) -> float:
    return max(FLOOR, given.logprob)


class TextOffsets:
    """Where each token of a completion begins, in characters of its text."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._characters = 0

    def take(self, data: Iterable[int]) -> int:
        """The place of the next token, whose bytes these are."""
        place = self._characters
        self._characters += len(self._decode(bytes(data)))
        return place


def text_logprobs(chosen: Iterable[TokenLogprob], offsets: TextOffsets, top: int) -> TextLogprobs:
    """The shape of completions.

    Args:
        chosen: The tokens.
        offsets: Of the answer so far.
        top: How many of the likeliest were asked for.
    """
    given = tuple(chosen)
    return TextLogprobs(
        tokens=tuple(token_text(each.bytes) for each in given),
        token_logprobs=tuple(_floored(each) for each in given),
        top_logprobs=tuple(_likely(each) for each in given) if top else None,
        text_offset=tuple(offsets.take(each.bytes) for each in given),
    )


def _likely(given: TokenLogprob) -> dict[str, float]:
    # With the chosen token among them even if it is not one of the likeliest, as OpenAI's.
    return {token_text(each.bytes): _floored(each) for each in (*given.top, given)}
