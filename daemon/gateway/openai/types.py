"""What a client of OpenAI's chat completions and completions may send.

A request's fields are of three kinds, and `docs/openai.md` lists each (a test compares):

* *honoured*: they do what OpenAI's reference says;
* *ignored* (`IGNORED`): they can't change the answer;
* *neutral* (`NEUTRAL`): they would change the answer in a way that is not built, so that only the values that
  ask for nothing are accepted; any other is refused, never ignored.

A field that is not here is refused by name. Every optional field may be null, which is the same as leaving it out.
Descriptions go into the documentation.

Reference: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta

from ..fields import Neutral
from .messages import Message
from .sampling import SamplingFields, TokenId, TokenLimit
from .tools import CHOICES as TOOL_CHOICES
from .tools import ResponseFormat, Tool, ToolChoice

Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ChatRequest(SamplingFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[tuple[Message, ...], Meta(min_length=1, description="required; see Messages")]
    max_tokens: Annotated[TokenLimit, Meta(description="without it, up to the end of the context")] | None = None
    max_completion_tokens: (
        Annotated[TokenLimit, Meta(description="the same as `max_tokens`; a 400 if both are given and differ")] | None
    ) = None
    tools: Annotated[tuple[Tool, ...], Meta(description="functions; see Tools")] | None = None
    tool_choice: Annotated[ToolChoice, Meta(description="default `auto`; see Tools")] | None = None
    parallel_tool_calls: Annotated[bool, Meta(description="if false, the answer ends with its first call")] | None = (
        None
    )
    response_format: Annotated[ResponseFormat, Meta(description="see Structured output")] | None = None
    logprobs: Annotated[bool, Meta(description="see Log probabilities")] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20, description="needs `logprobs`")] | None = None
    reasoning_effort: Annotated[Effort, Meta(description="given to the model's template; see Reasoning")] | None = (
        None
    )
    chat_template_kwargs: (
        Annotated[dict[str, Any], Meta(description="not OpenAI's; given to the model's template; see Reasoning")]
        | None
    ) = None

    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None
    store: Annotated[bool, Meta(description="nothing is stored")] | None = None
    service_tier: str | None = None
    prompt_cache_key: Annotated[str, Meta(description="prefixes are found by their tokens")] | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prediction: Annotated[dict[str, Any], Meta(description="a hint for speed")] | None = None

    functions: Annotated[list[dict[str, Any]], Meta(description="old; send `tools`")] | None = None
    function_call: Annotated[str | dict[str, Any], Meta(description="old; send `tool_choice`")] | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    verbosity: str | None = None
    web_search_options: dict[str, Any] | None = None
    moderation: dict[str, Any] | None = None


class CompletionRequest(SamplingFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/completions`."""

    prompt: Annotated[
        str | tuple[str | TokenId | tuple[TokenId, ...], ...],
        Meta(description="required; a text, token ids, or a list of either: an answer to each, `n` times"),
    ]
    max_tokens: Annotated[TokenLimit, Meta(description="default 16, as OpenAI's")] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5, description="see Log probabilities")] | None = None

    suffix: str | None = None
    echo: bool | None = None
    best_of: int | None = None


IGNORED = frozenset(
    {
        "user",
        "safety_identifier",
        "metadata",
        "store",
        "service_tier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "prediction",
    }
)
"""Fields that can't change the answer: accounting, storage, and hints for speed."""

NEUTRAL: Neutral = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "verbosity": ("medium",),
    "web_search_options": (),
    "moderation": (),
}
"""Of a chat request: what is not built."""

COMPLETION_NEUTRAL: Neutral = {"suffix": ("",), "echo": (False,), "best_of": (1,)}
"""Of a completion request: what is not built."""

INSTEAD = {"functions": "send tools", "function_call": "send tool_choice"}
"""The way out where a field has a successor."""

CHOICES = {
    **TOOL_CHOICES,
    "messages[].role": "`system`, `developer`, `user`, `assistant` or `tool`",
    "messages[].tool_calls[].type": "`function`",
    "reasoning_effort": "`none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`",
}
"""What may stand in a field that has a choice, for people."""
