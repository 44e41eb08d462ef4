"""What a client of OpenAI's Responses API may send, and what comes back.

The kinds of fields are those of `openai_types`: *honoured*, *ignored* (`IGNORED`: can't change the answer), and
*neutral* (`NEUTRAL`: what it asks for is not built, so that only values which ask for nothing are accepted).
`docs/responses.md` lists each, and a test compares. A field that is not here is refused by name.

Reference: https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta

from ..openai.sampling import TokenLimit

Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Summary: TypeAlias = Literal["auto", "concise", "detailed"]
Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]

INCLUDE_LOGPROBS = "message.output_text.logprobs"
Includable: TypeAlias = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
"""All but the first ask for parts of items that never occur here, or that are sent in the clear anyway."""


# -- how to answer -----------------------------------------------------------------------------------------


class FunctionTool(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="function"
):
    """A function that the model may call."""

    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    output_schema: dict[str, Any] | None = None
    allowed_callers: tuple[Literal["direct"], ...] | None = None
    defer_loading: Literal[False] | None = None


class NamespaceTool(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="namespace"
):
    """Functions that are called by a namespace and a name in it."""

    name: Annotated[str, Meta(min_length=1)]
    description: str = ""
    tools: tuple[FunctionTool, ...]


ShownTool: TypeAlias = FunctionTool | NamespaceTool


class NamedTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one function that must be called."""

    type: Literal["function"]
    name: str


class TextFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """Plain text."""


class JsonObjectFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="json_object"):
    """Any JSON object."""


class JsonSchemaFormat(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="json_schema"
):
    """A JSON value that fits `schema`. It always does, also where `strict` is false."""

    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


Format: TypeAlias = TextFormat | JsonObjectFormat | JsonSchemaFormat


class TextOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the text of the answer must be."""

    format: Format | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much the model thinks. A summary may be asked for; what comes is the reasoning itself."""

    effort: Effort | None = None
    summary: Summary | None = None
    generate_summary: Summary | None = None
    context: Literal["auto"] | None = None
    mode: Literal["standard"] | None = None


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Obfuscation pads events against eavesdroppers; it has no use on a loopback."""

    include_obfuscation: bool | None = None


class ResponsesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/responses`. Items and tools are understood one by one, for the sake of their errors."""

    model: str
    input: str | Annotated[tuple[dict[str, Any], ...], Meta(min_length=1)]
    instructions: str | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    max_output_tokens: TokenLimit | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    include: tuple[Includable, ...] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    max_tool_calls: int | None = None
    client_metadata: dict[str, Any] | None = None

    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    background: bool | None = None
    background_options: dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    truncation: str | None = None
    context_management: list[Any] | None = None
    moderation: dict[str, Any] | None = None
    access_programs: dict[str, Any] | None = None
    image: dict[str, Any] | None = None


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
        "max_tool_calls",
        "client_metadata",
    }
)
"""Fields that can't change the answer: accounting, storage, hints for speed, and a bound on built-in tools."""

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "previous_response_id": (),
    "conversation": (),
    "background": (False,),
    "background_options": (),
    "prompt": (),
    "truncation": ("disabled",),
    "context_management": ([],),
    "moderation": (),
    "access_programs": (),
    "image": (),
}
"""Fields of what is not built, each with its values, beside null, that don't ask for it."""


CHOICES = {
    "tool_choice": "`none`, `auto`, `required`, or the object that names a function",
    "tool_choice.type": "`function`",
    "text.format.type": "`text`, `json_object` or `json_schema`",
    "text.verbosity": "`medium`",
    "reasoning.context": "`auto`",
    "reasoning.mode": "`standard`",
    "include[]": ", ".join(f"`{name}`" for name in get_args(Includable)),
}
"""What may stand in fields that have a choice, for people."""


# -- the conversation so far -------------------------------------------------------------------------------


class Part(msgspec.Struct, frozen=True):
    """One part of a content list. Other types than text are known here only to be refused by name."""

    type: str
    text: str | None = None
    refusal: str | None = None


Content: TypeAlias = str | tuple[Part, ...]


class BaseItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What items of all types may carry when they are sent back as they came."""

    id: str | None = None
    status: Status | None = None


class MessageItem(BaseItem, frozen=True, kw_only=True):
    """What somebody said. An item without a type is one."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    phase: str | None = None


class FunctionCallItem(BaseItem, frozen=True, kw_only=True):
    """What the model called; `arguments` is a JSON object as text."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    namespace: str | None = None
    caller: dict[str, Any] | None = None


class FunctionCallOutputItem(BaseItem, frozen=True, kw_only=True):
    """What a function answered."""

    type: Literal["function_call_output"]
    call_id: str
    output: Content
    name: str | None = None
    namespace: str | None = None
    caller: dict[str, Any] | None = None


class ReasoningItem(BaseItem, frozen=True, kw_only=True):
    """What the model thought. Encrypted content is another server's, and says nothing here."""

    type: Literal["reasoning"]
    summary: tuple[Part, ...] | None = None
    content: tuple[Part, ...] | None = None
    encrypted_content: str | None = None


Item: TypeAlias = MessageItem | FunctionCallItem | FunctionCallOutputItem | ReasoningItem
