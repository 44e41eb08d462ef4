"""JSON-RPC error codes, which of them are worth another try, and what else an error says."""

from __future__ import annotations

from enum import IntEnum

import msgspec


class ErrorCode(IntEnum):
    """JSON-RPC error codes: the reserved ones (spec, section 5.1) and ours, from -32000 to -32099."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603

    UNSUPPORTED_PROTOCOL = -32001
    """The other end speaks another protocol version."""
    NOT_LOADED = -32002
    """A request that needs the model came before `load` succeeded."""
    MODEL_UNUSABLE = -32010
    """The model can't be loaded, and a restart won't help. Fatal."""
    INVALID_PROMPT = -32011
    """Empty prompt, token id outside the vocabulary, or messages that the chat template refuses."""
    CONTEXT_EXCEEDED = -32012
    """Prompt and answer don't fit the model's context."""
    INSUFFICIENT_MEMORY = -32013
    """The request's KV cache doesn't fit the memory limit now; it may later."""
    GENERATION_FAILED = -32014
    """The engine failed under the request, by no fault of its own; the same request may succeed elsewhere."""
    UNSUPPORTED = -32015
    """The request asks for what this model or engine can't do."""
    BUSY = -32016
    """What is asked for is done beside nothing else, and there is something else to do now."""

    NOT_READY = -32020
    """The daemon has no ready worker, and won't have one within the request's deadline."""
    REFUSED = -32021
    """The daemon understood, and says no; the message says why."""


RETRYABLE = frozenset({ErrorCode.INSUFFICIENT_MEMORY, ErrorCode.GENERATION_FAILED, ErrorCode.BUSY})
"""Worker errors that the same request may escape on another try."""

FATAL = frozenset({ErrorCode.MODEL_UNUSABLE, ErrorCode.UNSUPPORTED_PROTOCOL})
"""Worker errors that a restart won't mend."""


class ErrorData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`data` of an error: what to do about it, for a program and for a person."""

    retryable: bool = False
    remedy: str | None = None
    field: str | None = None
