"""What a client of Anthropic's Messages API may send, and what comes back.

The kinds of fields are those of `openai_types`: *honoured*, *ignored* (`IGNORED`: can't change the answer), and
*neutral* (`NEUTRAL`: what it asks for is not built, so that only values which ask for nothing are accepted).
`docs/anthropic.md` lists each, and a test compares. A field that is not here is refused by name. Every optional field
may be null, which is the same as leaving it out.

Reference: https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

LARGEST = (1 << 31) - 1
"""Of counts: what any worker's arithmetic can take."""

Name: TypeAlias = Annotated[str, Meta(min_length=1)]

Cache: TypeAlias = dict[str, Any] | None
"""`cache_control`: a mark that what comes before it will be sent again. Where it stands is not looked at."""


# -- blocks ------------------------------------------------------------------------------------------------


class TextBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """Text. `citations` and `parsed_output` are what an SDK keeps beside it, and sends back."""

    text: str
    cache_control: Cache = None
    citations: list[Any] | None = None
    parsed_output: Any = None


class ThinkingBlock(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="thinking"
):
    """What the model thought; the signature is not looked at."""

    thinking: str
    signature: str | None = None
    cache_control: Cache = None


class RedactedThinkingBlock(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="redacted_thinking"
):
    """What another server's model thought, which only that server can read."""

    data: str
    cache_control: Cache = None


class ToolUseBlock(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="tool_use"
):
    """A call of a tool."""

    id: str
    name: str
    input: dict[str, Any]
    cache_control: Cache = None
    caller: dict[str, Any] | None = None
    toolset_name: None = None


class ToolResultBlock(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="tool_result"
):
    """What a tool answered."""

    tool_use_id: str
    content: str | tuple[TextBlock, ...] | None = None
    is_error: bool | None = None
    cache_control: Cache = None
    toolset_name: None = None


UserBlock: TypeAlias = TextBlock | ToolResultBlock
AssistantBlock: TypeAlias = TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock
Block: TypeAlias = UserBlock | AssistantBlock


# -- messages ----------------------------------------------------------------------------------------------


class SystemMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="role", tag="system"):
    """Instructions in the middle of a conversation."""

    content: str | tuple[TextBlock, ...]


class UserMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="role", tag="user"):
    """What the user said, and what tools answered."""

    content: str | tuple[UserBlock, ...]


class AssistantMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="role", tag="assistant"):
    """What the model said, thought and called."""

    content: str | tuple[AssistantBlock, ...]


Message: TypeAlias = SystemMessage | UserMessage | AssistantMessage


# -- how to answer -----------------------------------------------------------------------------------------


class Tool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool that the client runs."""

    name: Name
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    cache_control: Cache = None
    input_examples: tuple[dict[str, Any], ...] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None
    eager_input_streaming: bool | None = None
    allowed_callers: tuple[Literal["direct"], ...] | None = None


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether a tool must, may or must not be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether the model thinks before it answers. The budget is a hint that no local model takes."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None


class JsonFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The answer is one JSON value that fits the schema."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The form of the answer, and how hard to think about it."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


class Edit(msgspec.Struct, frozen=True):
    """A rule for what is taken out of a long conversation."""

    type: str


class ContextManagement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the server shall take out of a long conversation."""

    edits: tuple[Edit, ...] | None = None


class CountRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/messages/count_tokens`: what makes a prompt."""

    model: Annotated[str, Meta(description="required")]
    messages: Annotated[tuple[Message, ...], Meta(min_length=1, description="required; see below")]
    system: Annotated[str | tuple[TextBlock, ...], Meta(description="a text, or blocks of text")] | None = None
    tools: Annotated[tuple[dict[str, Any], ...], Meta(description="see below")] | None = None
    """Each is a `Tool`, or one of the server's, which is refused by its `type` before its fields are looked at."""
    tool_choice: (
        Annotated[
            ToolChoice,
            Meta(
                description="`auto`, `any`, `tool`, `none`; with `disable_parallel_tool_use` the answer ends with "
                "the first call"
            ),
        ]
        | None
    ) = None
    thinking: Annotated[Thinking, Meta(description="off unless asked for; see below")] | None = None
    output_config: (
        Annotated[
            OutputConfig,
            Meta(
                description="`format`: the answer is JSON that fits the schema, or, beside tools, calls of them; "
                "`effort` reaches templates that know levels"
            ),
        ]
        | None
    ) = None
    output_format: Annotated[JsonFormat, Meta(description="the older name of `output_config.format`")] | None = None
    cache_control: Annotated[Cache, Meta(description="a hint; see below")] = None
    context_management: (
        Annotated[
            ContextManagement,
            Meta(
                description="edits of type `clear_thinking_…`: what is shown of earlier thinking is up to the "
                "model's template; others are a 400"
            ),
        ]
        | None
    ) = None
    speed: str | None = None
    user_profile_id: str | None = None
    workspace_id: str | None = None
    mcp_servers: list[dict[str, Any]] | None = None


class MessagesRequest(CountRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/messages`: a prompt, and how it is answered."""

    max_tokens: Annotated[
        int,
        Meta(
            ge=0, le=LARGEST, description="required; 0 computes the prompt, keeps it warm, and answers with nothing"
        ),
    ]
    stream: bool | None = None
    stop_sequences: tuple[Name, ...] | None = None
    temperature: (
        Annotated[float, Meta(ge=0, le=1, description="default 0, which is greedy (Anthropic's default is 1)")] | None
    ) = None
    top_p: Annotated[float, Meta(ge=0, le=1, description="default 1; 0 is greedy")] | None = None
    top_k: Annotated[int, Meta(ge=0, le=LARGEST, description="default 0: all tokens")] | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    diagnostics: dict[str, Any] | None = None
    billing_policy: Any = None
    fallback_credit_token: Any = None
    fallbacks: Any = None
    container: str | dict[str, Any] | None = None
    compaction: dict[str, Any] | None = None
    thread: dict[str, Any] | None = None


IGNORED = frozenset(
    {
        "speed",
        "user_profile_id",
        "workspace_id",
        "metadata",
        "service_tier",
        "inference_geo",
        "diagnostics",
        "billing_policy",
        "fallback_credit_token",
        "fallbacks",
    }
)
"""Fields that can't change the answer: accounting, places, and what to do where the model is overloaded."""

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "mcp_servers": ([],),
    "container": (),
    "compaction": (),
    "thread": (),
}
"""Fields of what is not built, each with its values, beside null, that don't ask for it."""


# -- answers -----------------------------------------------------------------------------------------------


class ThinkingTokens(msgspec.Struct, frozen=True):
    """Tokens of the answer that were thought."""

    thinking_tokens: int


class CumulativeUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts, as a stream's last event has them. The first three add up to the prompt."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: ThinkingTokens
    server_tool_use: None = None


class MessageUsage(CumulativeUsage, frozen=True, kw_only=True):
    """Token counts, as a message has them."""

    cache_creation: None = None
    service_tier: Literal["standard"] = "standard"


class AnswerText(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """What the model said."""

    text: str
    citations: None = None


class AnswerThinking(msgspec.Struct, frozen=True, tag_field="type", tag="thinking"):
    """What the model thought."""

    thinking: str
    signature: str


class AnswerToolUse(msgspec.Struct, frozen=True, tag_field="type", tag="tool_use"):
    """A call; `input` is the JSON object as the model wrote it."""

    id: str
    name: str
    input: msgspec.Raw


AnswerBlock: TypeAlias = AnswerText | AnswerThinking | AnswerToolUse


class AnswerMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """The answer: whole, or, without an end, as a stream begins."""

    id: str
    role: Literal["assistant"] = "assistant"
    model: str
    content: tuple[AnswerBlock, ...] = ()
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: None = None
    container: None = None
    usage: MessageUsage


class MessageTokensCount(msgspec.Struct, frozen=True):
    """The answer to a count."""

    input_tokens: int
