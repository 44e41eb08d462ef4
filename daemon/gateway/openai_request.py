"""From the bytes of a chat request to what the worker is asked; no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from ...ipc.messages import ChatPrompt, Generate, Sampling
from .errors import ApiError
from .openai_types import (
    NEUTRAL,
    AssistantMessage,
    ChatRequest,
    Content,
    DeveloperMessage,
    Message,
    Part,
    SystemMessage,
    ToolCall,
    ToolMessage,
)

DEFAULT_TEMPERATURE = 0.0
"""Greedy, as in mlx-lm's own server. OpenAI's default is 1, at which a small model's answer is noise."""

_SEED_MASK = (1 << 63) - 1  # seeds may be negative; the worker's generator wants none of that

_DECODER = msgspec.json.Decoder(ChatRequest)
_COMPLAINT = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_FIELD = re.compile(r"Object (?P<problem>contains unknown|missing required) field `(?P<name>[^`]*)`")


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A chat request, understood."""

    model: str
    stream: bool
    include_usage: bool
    body: Generate


def read_chat(data: bytes) -> ChatCall:
    """Understand a chat request.

    Raises:
        ApiError: 400, naming the field and what it may be.
    """
    request = _decode(data)
    _refuse_what_is_not_built(request)
    options = request.stream_options
    return ChatCall(
        model=request.model,
        stream=bool(request.stream),
        include_usage=bool(options and options.include_usage),
        body=_generate(request),
    )


def _decode(data: bytes) -> ChatRequest:
    try:
        return _DECODER.decode(data)
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"The body is not a UTF-8 JSON object: {error}.", code="invalid_json") from None


def _wrong_field(complaint: str) -> ApiError:
    parts = _COMPLAINT.fullmatch(complaint)
    what, path = (parts["what"], parts["path"] or "") if parts else (complaint, "")
    field = _FIELD.match(what)
    if field is None:
        return ApiError(400, f"{path or 'body'}: {what}.", param=path or None, code="invalid_value")
    path = f"{path}.{field['name']}".lstrip(".")
    if field["problem"] == "missing required":
        return ApiError(400, f"{path} is required.", param=path, code="missing_required_parameter")
    return ApiError(
        400,
        f"{path} is not supported, and is not ignored either: leave it out.",
        param=path,
        code="unknown_parameter",
    )


def _refuse_what_is_not_built(request: ChatRequest) -> None:
    for name, neutral in NEUTRAL.items():
        value = getattr(request, name)
        if value is not None and value not in neutral:
            allowed = " or ".join([*(msgspec.json.encode(each).decode() for each in neutral), "null"])
            raise ApiError(
                400,
                f"{name} is not supported, and is not ignored either: leave it out, or send {allowed}.",
                param=name,
                code="unsupported_parameter",
            )


def _generate(request: ChatRequest) -> Generate:
    return Generate(
        prompt=ChatPrompt(messages=tuple(_rendered(request.messages))),
        max_tokens=_max_tokens(request),
        sampling=_sampling(request),
        stop=(request.stop,) if isinstance(request.stop, str) else request.stop or (),
    )


def _max_tokens(request: ChatRequest) -> int | None:
    old, new = request.max_tokens, request.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise ApiError(
            400,
            "max_tokens and max_completion_tokens mean the same and differ: send one.",
            param="max_tokens",
            code="invalid_value",
        )
    return old if new is None else new


def _sampling(request: ChatRequest) -> Sampling:
    temperature = DEFAULT_TEMPERATURE if request.temperature is None else request.temperature
    top_p = 1.0 if request.top_p is None else request.top_p
    if top_p == 0:
        # Nothing but the likeliest token is left; samplers take 0 for "no limit".
        return Sampling(temperature=0.0)
    seed = None if request.seed is None else request.seed & _SEED_MASK
    return Sampling(temperature=temperature, top_p=top_p, seed=seed)


# -- messages, as chat templates know them -----------------------------------------------------------------


def _rendered(messages: Iterable[Message]) -> Iterable[dict[str, Any]]:
    for index, message in enumerate(messages):
        yield _message(message, f"messages[{index}]")


def _message(message: Message, path: str) -> dict[str, Any]:
    rendered: dict[str, Any] = {"role": _role(message), "content": _text(message.content, f"{path}.content")}
    if message.name is not None:
        rendered["name"] = message.name
    if isinstance(message, ToolMessage):
        rendered["tool_call_id"] = message.tool_call_id
    if isinstance(message, AssistantMessage):
        rendered |= _assistant(message, path)
    return rendered


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
        raise ApiError(
            400, f"{path}.content may be null only beside tool_calls.", param=f"{path}.content", code="invalid_value"
        )
    rendered: dict[str, Any] = {}
    if message.reasoning_content is not None:
        rendered["reasoning_content"] = message.reasoning_content
    if message.tool_calls:
        calls = enumerate(message.tool_calls)
        rendered["tool_calls"] = [_tool_call(call, f"{path}.tool_calls[{index}]") for index, call in calls]
    return rendered


def _tool_call(call: ToolCall, path: str) -> dict[str, Any]:
    # Templates expect an object, and would quote the text once more.
    path = f"{path}.function.arguments"
    try:
        arguments = msgspec.json.decode(call.function.arguments or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(
            400, f"{path} is not a JSON object in a string: {error}.", param=path, code="invalid_value"
        ) from None
    return {"id": call.id, "type": call.type, "function": {"name": call.function.name, "arguments": arguments}}
