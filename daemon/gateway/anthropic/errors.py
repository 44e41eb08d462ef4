"""Refusals in Anthropic's shape: `{"type": "error", "error": {"type", "message"}, "request_id"}`.

Which of the two shapes a client is told an error in depends on the path alone, so that also what no endpoint saw
(a wrong method, a body that is too long, a foreign `Origin`) has the shape of the API that was called.

Reference: https://platform.claude.com/docs/en/api/errors
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Literal

import msgspec
from aiohttp import web

from ..errors import ApiError

MESSAGES = "/v1/messages"
"""Everything at and under this path is Anthropic's."""

KINDS: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}
"""The error's `type` by status; any other is `invalid_request_error` below 500, and `api_error` from there."""

_TOO_LONG = "prompt is too long"
"""How Anthropic begins the message about a full context: agents look for this, and compact the conversation."""

HEADER = "request-id"
"""The response header with the request's id, where Anthropic's SDKs look for it."""

_REQUEST_ID = web.RequestKey("anthropic_request_id", str)


class Details(msgspec.Struct, frozen=True):
    """What Anthropic has no member for."""

    error_code: str


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was wrong."""

    type: str
    message: str
    details: Details | None = None


class ErrorDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every refusal under Anthropic's paths."""

    type: Literal["error"] = "error"
    error: Fault
    request_id: str


def is_anthropic(path: str) -> bool:
    """Whether a path belongs to Anthropic's API."""
    return path == MESSAGES or path.startswith(f"{MESSAGES}/")


def request_id(request: web.BaseRequest) -> str:
    """The request's id, the same whenever it is asked for."""
    if _REQUEST_ID not in request:
        request[_REQUEST_ID] = f"req_{secrets.token_hex(12)}"
    return request[_REQUEST_ID]


async def label(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Give an answer of Anthropic's API its `request-id`; a handler for aiohttp's `on_response_prepare`."""
    if is_anthropic(request.path):
        response.headers[HEADER] = request_id(request)


def document(error: ApiError, request_id: str) -> bytes:
    """An error as Anthropic's JSON object; our `code` is in it as `details.error_code`."""
    kind = KINDS.get(error.status) or ("invalid_request_error" if error.status < 500 else "api_error")
    fault = error.fault
    message = f"{_TOO_LONG}: {fault.message}" if fault.code == "context_length_exceeded" else fault.message
    details = Details(fault.code) if fault.code else None
    return msgspec.json.encode(ErrorDocument(error=Fault(kind, message, details), request_id=request_id))
