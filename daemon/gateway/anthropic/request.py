"""From the bytes of a Messages request to what the worker is asked; no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from ....ipc.messages import ChatPrompt, Constraint, CountTokens, Generate, JsonConstraint, Sampling, ToolConstraint
from ..errors import ApiError
from ..fields import converted, decoded, not_built, refuse_unless_neutral, require_shallow, wrong_value
from ..openai.sampling import DEFAULT_TEMPERATURE
from .conversation import blocks_of, is_prefilled, rendered
from .types import (
    NEUTRAL,
    CountRequest,
    JsonFormat,
    Message,
    MessagesRequest,
    Tool,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
)

_MESSAGES = msgspec.json.Decoder(MessagesRequest)
_COUNT = msgspec.json.Decoder(CountRequest)

_CHOICES = {
    "messages[].role": "`user`, `assistant` or `system`",
    "thinking.type": "`enabled`, `adaptive`, `between_tools` or `disabled`",
    "tool_choice.type": "`auto`, `any`, `tool` or `none`",
    "output_config.format.type": "`json_schema`",
}

_CONTENT = re.compile(r"((?:messages\[\d+\]\.content|system).*\])\.type: Invalid value '([^']*)'.*")

T = TypeVar("T", bound=CountRequest)


@dataclass(frozen=True, slots=True)
class MessagesCall:
    """A request, understood.

    Without `show_thinking` the client wants to know only that the model thought; with `only_warm` it wants the prompt
    computed for later, and no answer.
    """

    model: str
    stream: bool
    show_thinking: bool
    only_warm: bool
    body: Generate


@dataclass(frozen=True, slots=True)
class CountCall:
    """A request to count, understood."""

    model: str
    body: CountTokens


def read_messages(data: bytes) -> MessagesCall:
    """Understand a request for an answer.

    Raises:
        ApiError: 400, naming the field and what it may be.
    """
    request = _decoded(_MESSAGES, data)
    tools = tuple(_tools(request.tools or ()))
    only_warm = request.max_tokens == 0
    body = Generate(
        prompt=_prompt(request, tools),
        max_tokens=1 if only_warm else request.max_tokens,  # the worker answers with one token at least
        sampling=_sampling(request),
        stop=request.stop_sequences or (),
        constraint=_constraint(request, tools),
        parallel_calls=not (request.tool_choice and request.tool_choice.disable_parallel_tool_use),
        keep=only_warm or _is_to_be_kept(request, tools),
    )
    shown = request.thinking is None or request.thinking.display != "omitted"
    return MessagesCall(request.model, bool(request.stream), shown, only_warm, body)


def read_count(data: bytes) -> CountCall:
    """Understand a request to count a prompt.

    Raises:
        ApiError: 400, naming the field and what it may be.
    """
    request = _decoded(_COUNT, data)
    return CountCall(request.model, CountTokens(prompt=_prompt(request, tuple(_tools(request.tools or ())))))


# -- what is wrong with it ---------------------------------------------------------------------------------


def _decoded(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    try:
        request = decoded(decoder, data, _CHOICES)
    except ApiError as error:
        raise _wrong_content(error) from None
    refuse_unless_neutral(request, {name: NEUTRAL[name] for name in NEUTRAL if hasattr(request, name)}, {})
    _refuse_edits(request)
    _refuse_deep_inputs(request.messages)
    return request


def _refuse_edits(request: CountRequest) -> None:
    """What is left of earlier thinking is the template's decision anyway; no other edit is made for the client."""
    edits = (request.context_management and request.context_management.edits) or ()
    for index, edit in enumerate(edits):
        if not edit.type.startswith("clear_thinking_"):
            raise not_built(
                f"context_management.edits[{index}]",
                f"leave `{edit.type}` out, and shorten the conversation yourself",
            )


def _refuse_deep_inputs(messages: Iterable[Message]) -> None:
    for place, message in enumerate(messages):
        blocks = message.content if isinstance(message.content, tuple) else ()
        for index, block in enumerate(blocks):
            if isinstance(block, ToolUseBlock):
                require_shallow(block.input, f"messages[{place}].content[{index}].input")


def _wrong_content(error: ApiError) -> ApiError:
    """The refusal in words of its own, where a block's type is what is wrong."""
    found = _CONTENT.fullmatch(error.fault.message)
    if found is None:
        return error
    path, kind = found.groups()
    return ApiError(
        400,
        f"{path}: content of type `{kind}` is not supported here; this server takes text, thinking, calls of tools "
        "and their results as text, and never fetches a URL.",
        param=path,
        code="unsupported_content",
    )


# -- the prompt --------------------------------------------------------------------------------------------


def _prompt(request: CountRequest, tools: Sequence[Tool]) -> ChatPrompt:
    shown = () if request.tool_choice and request.tool_choice.type == "none" else tools
    return ChatPrompt(
        messages=tuple(rendered(request.system, request.messages)),
        tools=tuple(_template_tool(tool) for tool in shown),
        template_args=_template_args(request),
    )


def _template_args(request: CountRequest) -> dict[str, Any]:
    """Templates differ in the word: most have a switch, some have levels."""
    thinks = request.thinking is not None and request.thinking.type != "disabled"
    effort = request.output_config.effort if request.output_config else None
    levels = {"reasoning_effort": effort} if effort else {}
    goes_on = is_prefilled(request.messages[-1])
    prefilled = {"add_generation_prompt": False, "continue_final_message": True} if goes_on else {}
    return {"enable_thinking": thinks, **levels, **prefilled}


def _tools(given: Sequence[dict[str, Any]]) -> Iterator[Tool]:
    for index, tool in enumerate(given):
        path = f"tools[{index}]"
        kind = tool.get("type")
        if isinstance(kind, str) and kind != "custom":
            raise ApiError(
                400,
                f"{path}: a tool of type `{kind}` is not supported: this server runs no tools, and knows none by its "
                "type. Leave it out, or describe it as a tool of your own, with name and input_schema.",
                param=path,
                code="unsupported_parameter",
            )
        require_shallow(tool, path)
        yield converted(tool, Tool, path)


def _template_tool(tool: Tool) -> dict[str, Any]:
    """In OpenAI's form, which templates are written for."""
    examples = [msgspec.json.encode(each).decode() for each in tool.input_examples or ()]
    description = "\n".join([tool.description or "", *(["Examples of input:", *examples] if examples else [])])
    described = {"description": description.lstrip("\n")} if description else {}
    return {"type": "function", "function": {"name": tool.name, **described, "parameters": tool.input_schema}}


def _is_to_be_kept(request: MessagesRequest, tools: Sequence[Tool]) -> bool:
    """Whether there is a `cache_control` anywhere."""
    if request.cache_control or any(tool.cache_control for tool in tools):
        return True
    if isinstance(request.system, tuple) and any(block.cache_control for block in request.system):
        return True
    for block in blocks_of(request.messages):
        inner = block.content if isinstance(block, ToolResultBlock) and isinstance(block.content, tuple) else ()
        if any(each.cache_control for each in (block, *inner)):
            return True
    return False


# -- how it is answered ------------------------------------------------------------------------------------


def _sampling(request: MessagesRequest) -> Sampling:
    if request.top_p == 0:
        # Nothing but the likeliest token is left; samplers take 0 for "no limit".
        return Sampling(temperature=0.0)
    return Sampling(
        temperature=DEFAULT_TEMPERATURE if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        top_k=request.top_k or 0,
    )


def _constraint(request: MessagesRequest, tools: Sequence[Tool]) -> Constraint | None:
    choice = request.tool_choice
    if choice is not None and choice.type in {"any", "tool"}:
        return _must_call(choice, tools)
    form = _form(request)
    if form is None:
        return None
    require_shallow(form.schema, "output_config.format.schema")
    return JsonConstraint(schema=form.schema, or_call=bool(tools) and (choice is None or choice.type == "auto"))


def _form(request: MessagesRequest) -> JsonFormat | None:
    """The older name of the field is still what some clients send."""
    return (request.output_config.format if request.output_config else None) or request.output_format


def _must_call(choice: ToolChoice, tools: Sequence[Tool]) -> ToolConstraint:
    if not tools:
        raise wrong_value("tool_choice", f"is `{choice.type}`, but there are no tools: send tools, or leave it out")
    if choice.type == "any":
        return ToolConstraint()
    names = [tool.name for tool in tools]
    if choice.name not in names:
        known = ", ".join(f"`{name}`" for name in names)
        raise wrong_value("tool_choice.name", f"is none of the tools: {known}")
    return ToolConstraint(name=choice.name)
