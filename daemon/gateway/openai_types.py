"""What a client of the OpenAI chat API may send, and what comes back.

A request's fields are of three kinds, and `docs/api.md` lists each (a test compares):

* *honoured*: they do what OpenAI's reference says;
* *ignored* (`IGNORED`): they can't change the answer;
* *neutral* (`NEUTRAL`): they would change the answer in a way that is not built, so that only the values that
  ask for nothing are accepted; any other is refused, never ignored.

A field that is not here is refused by name. Every optional field may be null, which is the same as leaving it out.

Reference: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta


class Part(msgspec.Struct, frozen=True):
    """One part of a content list. Other types than `text` are known here only to be refused by name."""

    type: str
    text: str | None = None


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
    """A hint of other APIs that some clients send here too; prefixes are cached without it."""


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


class ToolMessage(BaseMessage, frozen=True, tag="tool"):
    """What a tool answered."""

    content: Content
    tool_call_id: str


Message: TypeAlias = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage

PositiveInt: TypeAlias = Annotated[int, Meta(ge=1)]
StopWord: TypeAlias = Annotated[str, Meta(min_length=1)]
StopWords: TypeAlias = Annotated[tuple[StopWord, ...], Meta(max_length=4)]


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to stream. Obfuscation pads events against eavesdroppers; it has no use on a loopback."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/chat/completions`."""

    model: str
    messages: Annotated[tuple[Message, ...], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: int | None = None
    stop: StopWord | StopWords | None = None

    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None

    n: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    web_search_options: dict[str, Any] | None = None
    moderation: dict[str, Any] | None = None


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
        "parallel_tool_calls",
    }
)
"""Fields that can't change the answer: accounting, storage, and hints for speed."""

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "modalities": (["text"],),
    "audio": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "moderation": (),
}
"""Fields of what is not built, each with its values, beside null, that don't ask for it."""


# -- answers -----------------------------------------------------------------------------------------------


class PromptDetails(msgspec.Struct, frozen=True):
    """Prompt tokens that needed no prefill."""

    cached_tokens: int


class CompletionDetails(msgspec.Struct, frozen=True):
    """Tokens of the answer that were reasoning."""

    reasoning_tokens: int


class TokenUsage(msgspec.Struct, frozen=True):
    """Token counts of one answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class AnswerMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The model's message; `refusal` is always null, and must be there."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The one answer."""

    index: int = 0
    message: AnswerMessage
    logprobs: None = None
    finish_reason: str


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request that does not stream."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[Choice]
    usage: TokenUsage
    system_fingerprint: str


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model that may be asked for."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "stoker"


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: tuple[Model, ...]
