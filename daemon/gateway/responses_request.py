"""From the bytes of a Responses request to what the worker is asked; no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ...ipc.messages import ChatPrompt, Constraint, Generate, JsonConstraint, Sampling, ToolConstraint
from .openai_body import converted, decoded, not_built, refuse_unless_neutral, require_shallow, wrong_value
from .openai_sampling import DEFAULT_TEMPERATURE
from .openai_tools import NO_PARAMETERS
from .responses_document import ShownReasoning, ShownText
from .responses_items import read_messages
from .responses_types import (
    CHOICES,
    INCLUDE_LOGPROBS,
    NEUTRAL,
    Format,
    FunctionTool,
    JsonSchemaFormat,
    NamedTool,
    ReasoningOptions,
    ResponsesRequest,
    TextFormat,
)

_STATELESS = "nothing is stored on this server, so send the whole conversation as `input`"
_INSTEAD = {"previous_response_id": _STATELESS, "conversation": _STATELESS}

_DECODER = msgspec.json.Decoder(ResponsesRequest)


@dataclass(frozen=True, slots=True)
class ResponsesCall:
    """A request, understood. `shown` are the fields of the answer that echo it."""

    model: str
    stream: bool
    body: Generate
    shown: dict[str, Any]


def read_responses(data: bytes) -> ResponsesCall:
    """Understand a request.

    Raises:
        ApiError: 400, naming the field and what it may be.
    """
    request = decoded(_DECODER, data, CHOICES)
    refuse_unless_neutral(request, NEUTRAL, _INSTEAD)
    tools = tuple(_tools(request.tools or ()))
    form = (request.text and request.text.format) or TextFormat()
    sampling = _sampling(request)
    body = Generate(
        prompt=ChatPrompt(
            messages=read_messages(request.input, request.instructions),
            tools=() if request.tool_choice == "none" else tuple(map(_template_tool, tools)),
            template_args=_template_args(request.reasoning),
        ),
        max_tokens=request.max_output_tokens,
        sampling=sampling,
        logprobs=_logprobs(request),
        constraint=_constraint(request, tools, form),
        parallel_calls=request.parallel_tool_calls is not False,
    )
    return ResponsesCall(request.model, bool(request.stream), body, _shown(request, tools, form))


def _sampling(request: ResponsesRequest) -> Sampling:
    temperature = DEFAULT_TEMPERATURE if request.temperature is None else request.temperature
    if request.top_p == 0:
        # Nothing but the likeliest token is left; samplers take 0 for "no limit".
        return Sampling(temperature=0.0)
    return Sampling(temperature=temperature, top_p=1.0 if request.top_p is None else request.top_p)


def _logprobs(request: ResponsesRequest) -> int | None:
    if request.top_logprobs or INCLUDE_LOGPROBS in (request.include or ()):
        return request.top_logprobs or 0
    return None


def _template_args(reasoning: ReasoningOptions | None) -> dict[str, Any]:
    """Templates differ in the word: those with levels read the first, those with a switch the second."""
    if reasoning is None or reasoning.effort is None:
        return {}
    off = {"enable_thinking": False} if reasoning.effort == "none" else {}
    return {"reasoning_effort": reasoning.effort, **off}


# -- tools -------------------------------------------------------------------------------------------------


def _tools(given: Sequence[dict[str, Any]]) -> Iterator[FunctionTool]:
    for index, tool in enumerate(given):
        path = f"tools[{index}]"
        kind = tool.get("type", "function")
        if kind != "function":
            remedy = f"this server has no tools of its own, such as type `{kind}`; leave it out, or send a `function`"
            raise not_built(path, remedy)
        read = converted(tool, FunctionTool, path)
        require_shallow(read.parameters, f"{path}.parameters")
        yield read


def _template_tool(tool: FunctionTool) -> dict[str, Any]:
    """In the form of the chat API, which templates are written for."""
    description = {} if tool.description is None else {"description": tool.description}
    function = {"name": tool.name, **description, "parameters": tool.parameters or NO_PARAMETERS}
    return {"type": "function", "function": function}


def _constraint(request: ResponsesRequest, tools: Sequence[FunctionTool], form: Format) -> Constraint | None:
    choice = request.tool_choice
    if choice == "required" or isinstance(choice, NamedTool):
        return _must_call(choice, tools)
    if isinstance(form, TextFormat):
        return None
    if tools and choice != "none":
        # Kept, the form would forbid every call; dropped, it would be ignored.
        raise not_built(
            "text.format", "beside tools that may be called, leave it out, or send tool_choice `none` or `required`"
        )
    if not isinstance(form, JsonSchemaFormat):
        return JsonConstraint()
    require_shallow(form.schema, "text.format.schema")
    return JsonConstraint(schema=form.schema)


def _must_call(choice: str | NamedTool, tools: Sequence[FunctionTool]) -> ToolConstraint:
    if not tools:
        raise wrong_value("tool_choice", "demands a call, but there are no tools: send tools, or leave it out")
    if not isinstance(choice, NamedTool):
        return ToolConstraint()
    names = [tool.name for tool in tools]
    if choice.name not in names:
        there = ", ".join(f"`{name}`" for name in names)
        raise wrong_value("tool_choice.name", f"is `{choice.name}`, which is not among the tools: {there}")
    return ToolConstraint(name=choice.name)


# -- what the answer echoes --------------------------------------------------------------------------------


def _shown(request: ResponsesRequest, tools: tuple[FunctionTool, ...], form: Format) -> dict[str, Any]:
    reasoning = request.reasoning or ReasoningOptions()
    return {
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": ShownReasoning(reasoning.effort, reasoning.summary or reasoning.generate_summary),
        "safety_identifier": request.safety_identifier,
        "temperature": DEFAULT_TEMPERATURE if request.temperature is None else request.temperature,
        "text": ShownText(form),
        "tool_choice": request.tool_choice or "auto",
        "tools": tools,
        "top_logprobs": request.top_logprobs or 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "user": request.user,
        "metadata": request.metadata or {},
    }
