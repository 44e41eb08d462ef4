"""The Responses API's answer: one document in each of its states, and the items in it.

Reference: https://platform.openai.com/docs/api-reference/responses/object
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from ..openai.logprobs import ChosenLogprob
from .types import Effort, Format, NamedTool, ShownTool, Status, Summary


class OutputText(msgspec.Struct, frozen=True, kw_only=True):
    """A message's text; nothing is ever annotated."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: tuple[()] = ()
    logprobs: tuple[ChosenLogprob, ...] = ()


class ReasoningText(msgspec.Struct, frozen=True, kw_only=True):
    """What the model thought, as it thought it."""

    type: Literal["reasoning_text"] = "reasoning_text"
    text: str


class OutputMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """The model's message."""

    id: str
    status: Status
    role: Literal["assistant"] = "assistant"
    content: tuple[OutputText, ...]


class OutputReasoning(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning"):
    """The model's reasoning; it is not summarised."""

    id: str
    status: Status
    summary: tuple[()] = ()
    content: tuple[ReasoningText, ...]
    encrypted_content: None = None


class OutputCall(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    """A call of a function."""

    id: str
    status: Status
    call_id: str
    name: str
    namespace: str | msgspec.UnsetType = msgspec.UNSET
    arguments: str


OutputItem: TypeAlias = OutputMessage | OutputReasoning | OutputCall


class InputDetails(msgspec.Struct, frozen=True):
    """Prompt tokens that needed no prefill. Writing to the cache costs nothing here, and is not counted."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct, frozen=True):
    """Tokens of the answer that were reasoning."""

    reasoning_tokens: int


class ResponseUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts of one answer."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ResponseFault(msgspec.Struct, frozen=True):
    """Why an answer failed."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class IncompleteDetails(msgspec.Struct, frozen=True):
    """Why an answer is incomplete."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ShownReasoning(msgspec.Struct, frozen=True):
    """What was asked of the reasoning."""

    effort: Effort | None = None
    summary: Summary | None = None


class ShownText(msgspec.Struct, frozen=True):
    """What was asked of the text."""

    format: Format
    verbosity: Literal["medium"] = "medium"


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, in each of its states. What the client asked for is echoed with the defaults filled in."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"] = "in_progress"
    background: Literal[False] = False
    completed_at: int | None = None
    error: ResponseFault | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    model: str
    output: tuple[OutputItem, ...] = ()
    parallel_tool_calls: bool = True
    previous_response_id: None = None
    prompt_cache_key: str | None = None
    reasoning: ShownReasoning = ShownReasoning()
    safety_identifier: str | None = None
    service_tier: Literal["default"] = "default"
    store: Literal[False] = False
    temperature: float
    text: ShownText
    tool_choice: Literal["none", "auto", "required"] | NamedTool = "auto"
    tools: tuple[ShownTool, ...] = ()
    top_logprobs: int = 0
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None
    metadata: dict[str, str] = {}
