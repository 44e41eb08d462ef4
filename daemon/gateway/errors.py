"""Every refusal in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

`anthropic_errors` tells the same refusals in Anthropic's.
`ApiError` is the one exception of this room; `explained` makes one of whatever else went wrong.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from functools import singledispatch

import msgspec
import structlog
from aiohttp import web

from ...ipc.errors import ErrorCode
from ...ipc.framing import FrameTooLong
from ..dispatch import RequestFailed, Unavailable

INVALID = "invalid_request_error"
SERVER = "server_error"
OVERLOADED = "rate_limit_error"

INTERNAL = "internal_error"
"""Code of a failure that nobody foresaw."""

MEMORY_RETRY_AFTER = 5.0
"""Seconds after which a request that found no memory may come again: about one answer's length."""

MESSAGE_LIMIT = 1000
"""Longest message in characters."""

_log = structlog.get_logger("stoker.gateway")


class Fault(msgspec.Struct, frozen=True):
    """What was wrong; all four members are always there."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorDocument(msgspec.Struct, frozen=True):
    """The body of every refusal, except under Anthropic's paths."""

    error: Fault


class ApiError(Exception):
    """A request is refused, or failed.

    Args:
        status: HTTP status.
        message: What was wrong, what is allowed, and what to do; goes to the client.
        kind: The error's `type`; None takes the usual one for the status.
        param: The request's field that is to blame, as a path such as `messages[0].content`.
        code: For programs.
        retry_after: Seconds after which another try makes sense; sent as a whole number, at least 1.
        headers: Further response headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        message = _shown(message)
        super().__init__(message)
        self.status = status
        param = None if param is None else _shown(param)
        self.fault = Fault(message, kind or (INVALID if status < 500 else SERVER), param, code)
        self.headers = {"Cache-Control": "no-store", **(headers or {})}
        if retry_after is not None:
            self.headers["Retry-After"] = whole_seconds(retry_after)

    def document(self) -> bytes:
        """The error as a JSON object."""
        return msgspec.json.encode(ErrorDocument(self.fault))

    def response(self, document: bytes | None = None) -> web.Response:
        """The error as an HTTP response; `document` is its body, where it is not OpenAI's."""
        return web.Response(
            status=self.status,
            body=self.document() if document is None else document,
            content_type="application/json",
            headers=self.headers,
        )


def _shown(text: str) -> str:
    """As much of a text as a message should have, in what UTF-8 can carry: messages quote what was sent."""
    shown = text if len(text) <= MESSAGE_LIMIT else f"{text[:MESSAGE_LIMIT]}…"
    return shown if shown.isascii() else shown.encode(errors="replace").decode()


def whole_seconds(seconds: float | None) -> str:
    """A `Retry-After` value: a client that comes back at once would only be refused again."""
    return str(max(1, math.ceil(seconds or 0)))


@singledispatch
def explained(_error: Exception) -> ApiError:
    """What the client is told about an exception. One that nobody foresaw is a 500, with the code `INTERNAL`."""
    return ApiError(500, "Stoker failed internally; its log says where.", code=INTERNAL)


def log_unforeseen(error: Exception, request_id: str) -> None:
    """Log where an exception comes from that nobody foresaw. The client was told the request's id."""
    _log.error("gateway.internal_error", error=type(error).__name__, where=_where(error), request=request_id)


@explained.register
def _already(error: ApiError) -> ApiError:
    return error


@explained.register
def _unavailable(error: Unavailable) -> ApiError:
    message = f"No worker can take the request now: {error.reason}."
    if error.last_words:
        message += f" The last one's last words: {error.last_words[-1]}"
    retry_after = error.retry_after or 1.0
    if error.full:
        return ApiError(429, message, kind=OVERLOADED, code="queue_full", retry_after=retry_after)
    return ApiError(503, message, code="not_ready", retry_after=retry_after)


_REFUSED_BY_WORKER: Mapping[int, str] = {
    ErrorCode.INVALID_PARAMS: "invalid_value",
    ErrorCode.INVALID_PROMPT: "invalid_prompt",
    ErrorCode.CONTEXT_EXCEEDED: "context_length_exceeded",
    ErrorCode.UNSUPPORTED: "unsupported",
}


@explained.register
def _failed(error: RequestFailed) -> ApiError:
    remedy = error.data.remedy
    message = f"{error.message} ({remedy})" if remedy else error.message
    if code := _REFUSED_BY_WORKER.get(error.code):
        return ApiError(400, message, param=error.data.field or "messages", code=code)
    if error.code == ErrorCode.INSUFFICIENT_MEMORY:
        return ApiError(503, message, code="insufficient_memory", retry_after=MEMORY_RETRY_AFTER)
    # The SDKs of OpenAI and Anthropic try a 500 again unless this header says no: a request that ends workers would
    # be back at once.
    headers = {} if error.data.retryable else {"x-should-retry": "false"}
    return ApiError(500, message, code="generation_failed", headers=headers)


@explained.register
def _too_long(error: FrameTooLong) -> ApiError:
    return ApiError(413, f"The conversation is too long: {error}.", code="request_too_large")


@explained.register
def _broken_body(_error: web.RequestPayloadError) -> ApiError:
    return ApiError(400, "The request's body could not be read to its end.", code="invalid_body")


@explained.register
def _too_deep(_error: RecursionError) -> ApiError:
    # Only what a client has nested is as deep as that: none of our own functions calls itself.
    return ApiError(400, "The body is nested too deeply.", code="invalid_value")


@explained.register
def _http(error: web.HTTPException) -> ApiError:
    return ApiError(error.status, f"{error.reason}.")


@explained.register
def _not_found(_error: web.HTTPNotFound) -> ApiError:
    return ApiError(404, "There is nothing under this path; `GET /` lists what is.", code="unknown_url")


@explained.register
def _wrong_method(error: web.HTTPMethodNotAllowed) -> ApiError:
    allowed = ", ".join(sorted(error.allowed_methods))
    return ApiError(
        405,
        f"{error.method} is not allowed here; {allowed} is.",
        code="method_not_allowed",
        headers={"Allow": allowed},
    )


@explained.register
def _too_large(error: web.HTTPRequestEntityTooLarge) -> ApiError:
    return ApiError(413, f"{error.text}.", code="request_too_large")


def _where(error: Exception) -> list[str]:
    # Only places: an exception's own text, or its frames' variables, may quote a prompt.
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-5:]]
