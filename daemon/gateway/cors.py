"""CORS: web pages of the configured origins may ask, and read the answers. Without any, nothing of this is sent.

Spec: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

import re
from collections.abc import Collection

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from .manners import allowed_methods

PREFLIGHT_AGE = 600
"""Seconds for which a browser may remember that it was allowed to ask."""

EXPOSED = "Retry-After, X-Request-Id, Request-Id, X-Stoker-Phase, X-Stoker-Ahead"
"""Response headers that scripts may read."""

_NAMES = re.compile(r"[\w!#$%&'*+.^`|~, -]{1,4096}", re.ASCII)
_PRIVATE_NETWORK = "Access-Control-Request-Private-Network"


def answering_preflights(origins: Collection[str]) -> Middleware:
    """A middleware that answers what browsers ask beforehand; they send no API key then."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        asks = request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        if asks and request.headers.get(hdrs.ORIGIN) in origins:
            return _preflight(request)
        return await handler(request)

    return check


def _preflight(request: web.Request) -> web.Response:
    allowed = allowed_methods(request)
    headers = {
        "Allow": allowed,
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: allowed,
        hdrs.ACCESS_CONTROL_MAX_AGE: str(PREFLIGHT_AGE),
        hdrs.VARY: f"{hdrs.ACCESS_CONTROL_REQUEST_METHOD}, {hdrs.ACCESS_CONTROL_REQUEST_HEADERS}",
    }
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
    if _NAMES.fullmatch(asked):  # SDKs send a dozen of their own; none of them gives a page more than it has
        headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = asked
    if request.headers.get(_PRIVATE_NETWORK) == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    return web.Response(status=204, headers=headers)


class Label:
    """Says on every answer who may read it.

    Args:
        origins: As configured.
    """

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = origins

    async def __call__(self, request: web.Request, response: web.StreamResponse) -> None:
        """An `on_response_prepare` signal."""
        if not self._origins:
            return
        vary = response.headers.get(hdrs.VARY)
        response.headers[hdrs.VARY] = f"{hdrs.ORIGIN}, {vary}" if vary else hdrs.ORIGIN  # also for others: caches
        origin = request.headers.get(hdrs.ORIGIN, "")
        if origin in self._origins:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED
