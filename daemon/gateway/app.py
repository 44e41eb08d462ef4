"""The application: endpoints, limits, and what surrounds every request."""

from __future__ import annotations

import contextlib

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from . import cors
from .anthropic import errors as anthropic_errors
from .anthropic.endpoints import Anthropic
from .backend import Backend
from .errors import INTERNAL, ApiError, explained, log_unforeseen
from .guard import guarding
from .keys import demanding_key
from .manners import BadFraming, before_the_handler, check_encoding, check_framing, no_continue
from .openai.endpoints import OpenAI
from .openapi.document import OpenAPI
from .page.live import LivePage
from .pages import Pages
from .responses.endpoints import Responses
from .sse import STREAM, EventStream

APIS = (OpenAI, Responses, Anthropic, OpenAPI, Pages, LivePage)
"""What serves; each has endpoints over one backend."""

BODY_LIMIT = 32 * 1024 * 1024
"""Longest request body in bytes, after decompression."""


SERVER_NAME = "stoker"
"""Versions of libraries are nobody's business."""


def application(backend: Backend) -> web.Application:
    """The HTTP API over `backend`; run it with `server.runner`, or cancellation won't work."""
    access = backend.access
    app = web.Application(
        client_max_size=BODY_LIMIT,
        middlewares=[
            _in_shape,
            guarding(backend.host, access.origins),
            cors.answering_preflights(access.origins),
            demanding_key(access),
            before_the_handler,
        ],
    )
    app.on_response_prepare.append(anthropic_errors.label)
    app.on_response_prepare.append(cors.Label(access.origins))
    app.on_response_prepare.append(_sign)
    for api in APIS:
        served = api(backend)
        app.add_routes(map(_unexpecting, served.routes()))
        if isinstance(served, LivePage):
            app.on_shutdown.append(served.close)
    return app


def _unexpecting(route: web.RouteDef) -> web.RouteDef:
    kwargs = {**route.kwargs, "expect_handler": no_continue}
    return web.RouteDef(route.method, route.path, route.handler, kwargs)


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Request-Id"] = anthropic_errors.request_id(request)  # where OpenAI's SDKs look for it
    response.headers["Server"] = SERVER_NAME
    response.headers["X-Content-Type-Options"] = "nosniff"


@web.middleware
async def _in_shape(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        check_framing(request)
        check_encoding(request)
        _check_length(request)
        return await handler(request)
    except Exception as error:  # noqa: BLE001 - nothing leaves in another shape than the API's; unforeseen is logged
        return await refuse(request, error)


async def refuse(request: web.Request, error: Exception) -> web.StreamResponse:
    """Tell the client of a failure, in the shape of the API that was called, and in its stream once that is open."""
    stream: EventStream | None = request.get(STREAM)
    if isinstance(error, ConnectionError) and _has_left(request):
        return web.Response(status=499) if stream is None else stream.response
    refusal = explained(error)
    if refusal.fault.code == INTERNAL:
        log_unforeseen(error, anthropic_errors.request_id(request))
    if stream is None:
        response = refusal.response(_document(request, refusal))
        if isinstance(error, (web.RequestPayloadError, BadFraming)) or _may_leave_out_its_body(request):
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


def _may_leave_out_its_body(request: web.Request) -> bool:
    # Refused before it was told to continue, a client is free to send its body or not.
    return hdrs.EXPECT in request.headers and request.can_read_body


def _check_length(request: web.Request) -> None:
    if (request.content_length or 0) > BODY_LIMIT:
        raise ApiError(
            413, f"The body is longer than {BODY_LIMIT} bytes, which is the limit.", code="request_too_large"
        )
