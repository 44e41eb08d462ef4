"""What the worker refuses, as exceptions that carry their JSON-RPC error.

WorkerError
├── ModelUnusable        the model can't be loaded; a restart won't help
├── ModelUnreachable     the model can't be fetched now; it may work later
├── NotLoaded            a request came before `load` succeeded
├── InvalidRequest       a field has a value that can't be meant
├── InvalidPrompt        empty, outside the vocabulary, or refused by the chat template
├── ContextExceeded      prompt and answer don't fit the context
├── InsufficientMemory   the KV cache doesn't fit the memory limit now
├── GenerationFailed     the engine failed, by no fault of the request
├── Unsupported          the model or the configuration has no such thing
└── Busy                 it would be done beside nothing else, and there is something else to do
"""

from __future__ import annotations

from typing import ClassVar

from ..ipc.errors import RETRYABLE, ErrorCode, ErrorData
from ..ipc.framing import ErrorResponse
from ..ipc.messages import Id


class WorkerError(Exception):
    """A request's refusal.

    Args:
        message: What was given and what is allowed.
        remedy: What to do about it.
        field: The request's field at fault.
        retryable: None takes what the code usually means.
    """

    CODE: ClassVar[ErrorCode] = ErrorCode.INTERNAL_ERROR

    def __init__(
        self, message: str, *, remedy: str | None = None, field: str | None = None, retryable: bool | None = None
    ) -> None:
        super().__init__(message)
        if retryable is None:
            retryable = self.CODE in RETRYABLE
        self.message = message
        self.data = ErrorData(retryable=retryable, remedy=remedy, field=field)

    def response(self, request_id: Id) -> ErrorResponse:
        """The answer to the request that it refuses."""
        return ErrorResponse(request_id, self.CODE, self.message, self.data)


class ModelUnusable(WorkerError):
    """The model can't be loaded, and a restart won't help."""

    CODE = ErrorCode.MODEL_UNUSABLE


class ModelUnreachable(WorkerError):
    """The model could not be fetched, for a reason that may pass."""

    CODE = ErrorCode.GENERATION_FAILED


class NotLoaded(WorkerError):
    """There is no model yet."""

    CODE = ErrorCode.NOT_LOADED


class InvalidRequest(WorkerError):
    """A field's value can't be meant."""

    CODE = ErrorCode.INVALID_PARAMS


class InvalidPrompt(WorkerError):
    """The prompt can't be given to this model."""

    CODE = ErrorCode.INVALID_PROMPT


class ContextExceeded(WorkerError):
    """Prompt and answer don't fit the context."""

    CODE = ErrorCode.CONTEXT_EXCEEDED


class InsufficientMemory(WorkerError):
    """The KV cache doesn't fit the memory limit."""

    CODE = ErrorCode.INSUFFICIENT_MEMORY


class GenerationFailed(WorkerError):
    """The engine failed under the request."""

    CODE = ErrorCode.GENERATION_FAILED


class Unsupported(WorkerError):
    """The model or the configuration has no such thing."""

    CODE = ErrorCode.UNSUPPORTED


class Busy(WorkerError):
    """It would be done beside nothing else, and there is something else to do now."""

    CODE = ErrorCode.BUSY
