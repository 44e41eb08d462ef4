"""The application: endpoints, limits, and what surrounds every request."""

from __future__ import annotations

import contextlib

from aiohttp import web
from aiohttp.typedefs import Handler

from . import anthropic_errors
from .backend import Backend
from .errors import ApiError, explained
from .guard import guarding
from .openai import OpenAI
from .pages import Pages
from .sse import STREAM, EventStream

BODY_LIMIT = 32 * 1024 * 1024
"""Longest request body in bytes, after decompression."""


def application(backend: Backend) -> web.Application:
    """The HTTP API over `backend`; run it with `server.runner`, or cancellation won't work."""
    app = web.Application(client_max_size=BODY_LIMIT, middlewares=[_in_shape, guarding(backend.host)])
    app.on_response_prepare.append(anthropic_errors.label)
    app.add_routes(OpenAI(backend).routes())
    app.add_routes(Pages(backend).routes())
    return app


@web.middleware
async def _in_shape(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        _check_length(request)
        return await handler(request)
    except Exception as error:  # noqa: BLE001 - nothing leaves in another shape than the API's; unforeseen is logged
        return await _refuse(request, error)


async def _refuse(request: web.Request, error: Exception) -> web.StreamResponse:
    stream: EventStream | None = request.get(STREAM)
    if isinstance(error, ConnectionError) and _has_left(request):
        return web.Response(status=499) if stream is None else stream.response
    refusal = explained(error)
    if stream is None:
        response = refusal.response(_document(request, refusal))
        if isinstance(error, web.RequestPayloadError):
            response.force_close()  # where the next request would begin can't be known
        return response
    with contextlib.suppress(ConnectionError):  # the client left meanwhile; there is nobody to tell
        await stream.break_off(refusal)
    return stream.response


def _document(request: web.Request, refusal: ApiError) -> bytes:
    """The refusal in the shape of the API that was called."""
    if anthropic_errors.is_anthropic(request.path):
        return anthropic_errors.document(refusal, anthropic_errors.request_id(request))
    return refusal.document()


def _has_left(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _check_length(request: web.Request) -> None:
    if (request.content_length or 0) > BODY_LIMIT:
        raise ApiError(
            413, f"The body is longer than {BODY_LIMIT} bytes, which is the limit.", code="request_too_large"
        )
