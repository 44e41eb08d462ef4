"""The messages of a chat, as clients send them and as chat templates know them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import msgspec

from ..errors import ApiError
from ..fields import require_shallow, wrong_value


class Part(msgspec.Struct, frozen=True):
    """One part of a content list. Other types than `text` are known here only to be refused by name."""

    type: str
    text: str | None = None
    cache_control: dict[str, Any] | None = None


Content: TypeAlias = str | tuple[Part, ...]


class FunctionCall(msgspec.Struct, frozen=True):
    """What an assistant's message called; `arguments` is a JSON object as text."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True):
    """A call in the history of a conversation."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class BaseMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role"):
    """What messages of all roles may carry."""

    name: str | None = None
    cache_control: dict[str, Any] | None = None
    """A hint of other APIs that some clients send here too; see `is_marked`."""


class SystemMessage(BaseMessage, frozen=True, tag="system"):
    """Instructions."""

    content: Content


class DeveloperMessage(BaseMessage, frozen=True, tag="developer"):
    """OpenAI's newer word for a system message; templates know only the older one."""

    content: Content


class UserMessage(BaseMessage, frozen=True, tag="user"):
    """What the user said."""

    content: Content


class AssistantMessage(BaseMessage, frozen=True, tag="assistant"):
    """What the model said; `content` may be null beside tool calls."""

    content: Content | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    # SDKs send back a whole message as they received it, with these in it.
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: list[Any] | None = None
    parsed: Any = None
    """What the SDK's `parse` made of `content`, which says the same."""


class ToolMessage(BaseMessage, frozen=True, tag="tool"):
    """What a tool answered."""

    content: Content
    tool_call_id: str


Message: TypeAlias = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


def rendered(messages: Iterable[Message]) -> tuple[dict[str, Any], ...]:
    """Messages as a chat template takes them.

    Raises:
        ApiError: 400; a content that is not text, or a call whose arguments are no JSON object.
    """
    return tuple(_message(message, f"messages[{index}]") for index, message in enumerate(messages))


def is_marked(messages: Iterable[Message]) -> bool:
    """Whether the client says, in Anthropic's words, that more requests will begin like this one."""
    return any(message.cache_control or _has_marked_part(message.content) for message in messages)


def _has_marked_part(content: Content | None) -> bool:
    return isinstance(content, tuple) and any(part.cache_control for part in content)


def _message(message: Message, path: str) -> dict[str, Any]:
    result: dict[str, Any] = {"role": _role(message), "content": _text(message.content, f"{path}.content")}
    if message.name is not None:
        result["name"] = message.name
    if isinstance(message, ToolMessage):
        result["tool_call_id"] = message.tool_call_id
    if isinstance(message, AssistantMessage):
        result |= _assistant(message, path)
    return result


def _role(message: Message) -> str:
    tag = SystemMessage if isinstance(message, DeveloperMessage) else type(message)
    return str(tag.__struct_config__.tag)


def _text(content: Content | None, path: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(_part(part, f"{path}[{index}]") for index, part in enumerate(content))


def _part(part: Part, path: str) -> str:
    if part.type != "text":
        raise ApiError(
            400,
            f"{path}: content of type `{part.type}` is not supported; this server takes `text` only, and never "
            "fetches a URL.",
            param=path,
            code="unsupported_content",
        )
    if part.text is None:
        raise ApiError(400, f"{path}.text is required.", param=f"{path}.text", code="missing_required_parameter")
    return part.text


def _assistant(message: AssistantMessage, path: str) -> dict[str, Any]:
    if message.content is None and not message.tool_calls:
        raise wrong_value(f"{path}.content", "may be null only beside tool_calls")
    result: dict[str, Any] = {}
    if message.reasoning_content is not None:
        result["reasoning_content"] = message.reasoning_content
    if message.tool_calls:
        calls = enumerate(message.tool_calls)
        result["tool_calls"] = [_tool_call(call, f"{path}.tool_calls[{index}]") for index, call in calls]
    return result


def _tool_call(call: ToolCall, path: str) -> dict[str, Any]:
    arguments = tool_arguments(call.function.arguments, f"{path}.function.arguments")
    return {"id": call.id, "type": call.type, "function": {"name": call.function.name, "arguments": arguments}}


def tool_arguments(text: str, path: str) -> dict[str, Any]:
    """A call's arguments as an object: templates expect that, and would quote a text once more.

    Raises:
        ApiError: 400, naming `path`.
    """
    try:
        arguments = msgspec.json.decode(text or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise wrong_value(path, f"is not a JSON object in a string: {error}") from None
    require_shallow(arguments, path)
    return arguments
