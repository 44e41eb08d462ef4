"""From Anthropic's messages to those that chat templates know; no I/O.

Templates are written for OpenAI's form: one text for each message, calls beside the text, and each result of a tool a
message of its own. Consecutive messages of one role are one turn, as Anthropic has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, takewhile
from typing import Any, TypeAlias

from .types import (
    AssistantMessage,
    Block,
    Message,
    SystemMessage,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)

Rendered: TypeAlias = dict[str, Any]


def rendered(system: str | tuple[TextBlock, ...] | None, messages: Iterable[Message]) -> Iterator[Rendered]:
    """The messages, the system's first.

    The system's blocks stay parts of their own, so that the worker can take out those that are a client's accounting.
    """
    said = [*([SystemMessage(system)] if system else []), *messages]
    opening = list(takewhile(lambda message: isinstance(message, SystemMessage), said))
    said = [*opening, *(_within(message) for message in said[len(opening) :])]
    names = {block.id: block.name for block in blocks_of(said) if isinstance(block, ToolUseBlock)}
    for role, turn in groupby(said, type):
        blocks = list(blocks_of(turn))
        if role is SystemMessage:
            yield {"role": "system", "content": _parts(blocks)}
        elif role is UserMessage:
            yield from _user(blocks, names)
        else:
            yield _assistant(blocks)


def _within(message: Message) -> Message:
    """A system message in the middle is told in the user's turn: few templates take one, and many refuse it."""
    if not isinstance(message, SystemMessage):
        return message
    return UserMessage((TextBlock(text=f"<system-reminder>\n{_text(_blocks(message.content))}\n</system-reminder>"),))


def blocks_of(messages: Iterable[Message]) -> Iterator[Block]:
    """All blocks of all messages, in order."""
    for message in messages:
        yield from _blocks(message.content)


def is_prefilled(message: Message) -> bool:
    """Whether a conversation that ends with this message has the beginning of the answer in it."""
    return isinstance(message, AssistantMessage) and bool(_text(_blocks(message.content)))


def _blocks(content: str | Sequence[Block]) -> Sequence[Block]:
    return (TextBlock(text=content),) if isinstance(content, str) else content


def _user(blocks: Sequence[Block], names: Mapping[str, str]) -> Iterator[Rendered]:
    """Results first, whatever their place: templates want them right behind the calls."""
    results = [block for block in blocks if isinstance(block, ToolResultBlock)]
    yield from (_result(block, names.get(block.tool_use_id)) for block in results)
    if len(results) < len(blocks) or not blocks:
        yield {"role": "user", "content": _text(blocks)}


def _result(block: ToolResultBlock, name: str | None) -> Rendered:
    text = _text(_blocks(block.content or ()))
    if block.is_error and not text.lower().startswith("error"):
        text = f"Error: {text}"  # templates have no other way to say so
    return {
        "role": "tool",
        "tool_call_id": block.tool_use_id,
        **({} if name is None else {"name": name}),
        "content": text,
    }


def _assistant(blocks: Sequence[Block]) -> Rendered:
    message: Rendered = {"role": "assistant", "content": _text(blocks)}
    if thought := "".join(block.thinking for block in blocks if isinstance(block, ThinkingBlock)):
        message["reasoning_content"] = thought
    if calls := [_call(block) for block in blocks if isinstance(block, ToolUseBlock)]:
        message["tool_calls"] = calls
    return message


def _call(block: ToolUseBlock) -> Rendered:
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": block.input}}


def _parts(blocks: Sequence[Block]) -> list[Rendered]:
    return [{"type": "text", "text": text} for text in _separated(blocks)]


def _text(blocks: Iterable[Block]) -> str:
    return "".join(_separated(blocks))


def _separated(blocks: Iterable[Block]) -> list[str]:
    """The texts, with a newline where one would run into the next. The worker joins parts without one."""
    texts = [block.text for block in blocks if isinstance(block, TextBlock) and block.text]
    return [text if text.endswith("\n") else f"{text}\n" for text in texts[:-1]] + texts[-1:]
