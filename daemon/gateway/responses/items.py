"""From a Responses request's items to messages, as chat templates know them; no I/O.

Here a turn of the model is several items: what it thought, what it said, what it called. A template wants them as one
message; and instructions beside a system message, of which many templates take only one, and first, as one too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import ApiError
from ..fields import converted
from ..openai.messages import tool_arguments
from .tools import full_name
from .types import (
    Content,
    FunctionCallItem,
    FunctionCallOutputItem,
    Item,
    MessageItem,
    Part,
    ReasoningItem,
)

TEXTS = frozenset({"input_text", "output_text", "reasoning_text", "summary_text"})
"""Types of parts that are text."""

_ITEMS: Mapping[str, type[Item]] = {
    "message": MessageItem,
    "function_call": FunctionCallItem,
    "function_call_output": FunctionCallOutputItem,
    "reasoning": ReasoningItem,
}

Message = dict[str, Any]


def read_messages(given: str | Iterable[dict[str, Any]], instructions: str | None) -> tuple[Message, ...]:
    """Understand a request's input.

    Raises:
        ApiError: 400, naming the item and what it may be.
    """
    start = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(given, str):
        return (*start, {"role": "user", "content": given})
    return tuple(_one_system([*start, *_turns(_items(given))]))


def _items(given: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Item]]:
    for index, item in enumerate(given):
        path = f"input[{index}]"
        # SDKs send back items as they know them, with a null for each field that this server never had.
        given_fields = {name: value for name, value in item.items() if value is not None}
        yield path, converted(given_fields, _kind(item.get("type") or "message", path), path)


def _kind(name: object, path: str) -> type[Item]:
    if isinstance(name, str) and name in _ITEMS:
        return _ITEMS[name]
    if name == "item_reference":
        problem = "items are not stored on this server: send the item itself"
    else:
        problem = f"items of type `{name}` are not supported; {', '.join(f'`{each}`' for each in _ITEMS)} are"
    raise ApiError(400, f"{path}: {problem}.", param=path, code="unsupported_content")


def _turns(items: Iterable[tuple[str, Item]]) -> Iterator[Message]:
    """The messages; consecutive items of the model are one."""
    turn: Message = {}
    for path, item in items:
        match item:
            case ReasoningItem() | FunctionCallItem() | MessageItem(role="assistant"):
                if not _fits(turn, item):
                    yield turn
                    turn = {}
                _extend(turn, item, path)
                continue
        if turn:
            yield turn
            turn = {}
        yield _other(item, path)
    if turn:
        yield turn


def _fits(turn: Message, item: Item) -> bool:
    """Whether an item may belong to a turn: only calls come after calls, and nothing is said or thought twice."""
    match item:
        case FunctionCallItem():
            return True
        case MessageItem():
            return not (turn.get("content") or "tool_calls" in turn)
        case _:
            return not turn


def _extend(turn: Message, item: Item, path: str) -> None:
    thought = _text(item.content or item.summary or (), path) if isinstance(item, ReasoningItem) else ""
    if isinstance(item, ReasoningItem) and not thought:
        return  # another server's, encrypted
    turn.setdefault("role", "assistant")
    turn.setdefault("content", "")
    match item:
        case ReasoningItem():
            turn["reasoning_content"] = thought
        case FunctionCallItem():
            turn.setdefault("tool_calls", []).append(_call(item, path))
        case MessageItem():
            turn["content"] = _text(item.content, f"{path}.content")


def _other(item: Item, path: str) -> Message:
    match item:
        case FunctionCallOutputItem():
            content = _text(item.output, f"{path}.output")
            return {"role": "tool", "content": content, "tool_call_id": item.call_id}
        case MessageItem(role=role):
            # Templates know only the older word for a developer.
            name = "system" if role == "developer" else role
            return {"role": name, "content": _text(item.content, f"{path}.content")}
    raise AssertionError(item)


def _call(item: FunctionCallItem, path: str) -> dict[str, Any]:
    name, arguments = full_name(item.namespace, item.name), tool_arguments(item.arguments, f"{path}.arguments")
    return {"id": item.call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _text(content: Content, path: str) -> str:
    if isinstance(content, str):
        return content
    return "".join(_part(part, f"{path}[{index}]") for index, part in enumerate(content))


def _part(part: Part, path: str) -> str:
    if part.type != "refusal" and part.type not in TEXTS:
        raise ApiError(
            400,
            f"{path}: content of type `{part.type}` is not supported; this server takes text only, and never "
            "fetches a URL.",
            param=path,
            code="unsupported_content",
        )
    field = "refusal" if part.type == "refusal" else "text"
    text = part.refusal if field == "refusal" else part.text
    if text is None:
        path = f"{path}.{field}"
        raise ApiError(400, f"{path} is required.", param=path, code="missing_required_parameter")
    return text


def _one_system(messages: list[Message]) -> Iterator[Message]:
    count = next((index for index, each in enumerate(messages) if each["role"] != "system"), len(messages))
    if count:
        yield {"role": "system", "content": "\n\n".join(each["content"] for each in messages[:count])}
    yield from messages[count:]
