"""From the bytes of a Responses request to what the worker is asked; no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from ....ipc.messages import ChatPrompt, Constraint, Generate, JsonConstraint, Sampling
from ..fields import decoded, refuse_unless_neutral, require_shallow
from ..openai.sampling import DEFAULT_TEMPERATURE
from .document import ShownReasoning, ShownText
from .items import read_messages
from .tools import Tools, must_call, read_tools
from .types import (
    CHOICES,
    INCLUDE_LOGPROBS,
    NEUTRAL,
    Format,
    JsonSchemaFormat,
    ReasoningOptions,
    ResponsesRequest,
    TextFormat,
)

_STATELESS = "nothing is stored on this server, so send the whole conversation as `input`"
_INSTEAD = {"previous_response_id": _STATELESS, "conversation": _STATELESS}

_DECODER = msgspec.json.Decoder(ResponsesRequest)


@dataclass(frozen=True, slots=True)
class ResponsesCall:
    """A request, understood.

    Attributes:
        model: Its name, as the client wrote it.
        stream: Whether the answer is to be streamed.
        body: What the worker is asked.
        shown: The fields of the answer that echo the request.
        tools: What may be called.
    """

    model: str
    stream: bool
    body: Generate
    shown: dict[str, Any]
    tools: Tools


def read_responses(data: bytes) -> ResponsesCall:
    """Understand a request.

    Raises:
        ApiError: 400, naming the field and what it may be.
    """
    request = decoded(_DECODER, data, CHOICES)
    refuse_unless_neutral(request, NEUTRAL, _INSTEAD)
    tools = read_tools(request.tools or ())
    form = (request.text and request.text.format) or TextFormat()
    sampling = _sampling(request)
    body = Generate(
        prompt=ChatPrompt(
            messages=read_messages(request.input, request.instructions),
            tools=() if request.tool_choice == "none" else tools.rendered,
            template_args=_template_args(request.reasoning),
        ),
        max_tokens=request.max_output_tokens,
        sampling=sampling,
        logprobs=_logprobs(request),
        constraint=_constraint(request, tools, form),
        parallel_calls=request.parallel_tool_calls is not False,
    )
    return ResponsesCall(request.model, bool(request.stream), body, _shown(request, tools, form), tools)


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


def _constraint(request: ResponsesRequest, tools: Tools, form: Format) -> Constraint | None:
    if call := must_call(request.tool_choice, tools):
        return call
    if isinstance(form, TextFormat):
        return None
    or_call = bool(tools.rendered) and request.tool_choice != "none"
    if not isinstance(form, JsonSchemaFormat):
        return JsonConstraint(or_call=or_call)
    require_shallow(form.schema, "text.format.schema")
    return JsonConstraint(schema=form.schema, or_call=or_call)


# -- what the answer echoes --------------------------------------------------------------------------------


def _shown(request: ResponsesRequest, tools: Tools, form: Format) -> dict[str, Any]:
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
        "tools": tools.given,
        "top_logprobs": request.top_logprobs or 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "user": request.user,
        "metadata": request.metadata or {},
    }
