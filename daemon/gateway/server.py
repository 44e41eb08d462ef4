"""How the application is run: connections, their limits, and bytes that are no HTTP."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError

from .app import SERVER_NAME, application
from .backend import Backend
from .errors import ApiError
from .manners import unknown_encoding

IDLE_TIMEOUT = 75.0
"""Seconds that a connection may stay without a request, or with half a request's head."""

LINGERING = 2.0
"""Seconds in which the rest of a refused body is read and dropped, so that its sender comes to read the refusal."""

CONNECTIONS_LIMIT = 2048
"""Open connections: half of the descriptors that the control socket may use, so that neither starves the other, nor
the worker that is to be started."""

_FULL_DOCUMENT = ApiError(503, "Too many connections are open; close some.", code="too_many_connections").document()
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
    b"Retry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_FULL_DOCUMENT), _FULL_DOCUMENT)
)

_log = logging.getLogger("stoker.gateway.http")


def _without_details(record: logging.LogRecord) -> bool:
    # aiohttp logs exceptions whole, and those may quote what was sent.
    if record.exc_info and record.exc_info[0] is not None:
        record.msg = f"{record.msg}: {record.exc_info[0].__name__}"
        record.exc_info = None
    return True


def _first_line(record: logging.LogRecord) -> bool:
    # asyncio adds the reprs of tasks and their exceptions to what it says, a line each.
    record.msg, record.args = record.getMessage().partition("\n")[0], None
    return _without_details(record)


_log.addFilter(_without_details)
logging.getLogger("asyncio").addFilter(_first_line)


def runner(backend: Backend, *, shutdown_timeout: float = 5.0) -> web.AppRunner:
    """Serve `backend`: give the runner's sites an address each.

    Args:
        backend: What is served.
        shutdown_timeout: Seconds that running answers get when the runner is cleaned up.
    """
    return _Runner(application(backend), shutdown_timeout=shutdown_timeout)


class _Connection(web.RequestHandler):
    """Answers what is no HTTP in the API's shape too; aiohttp would quote it back as plain text."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes what was sent
    ) -> web.StreamResponse:
        self.logger.info("bad request from %s: %s", request.remote, type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; the connection is closed instead")
        refusal = ApiError(status, "This is not a valid HTTP request.", code="invalid_http")
        if isinstance(exc, ContentEncodingError):
            refusal = unknown_encoding()
        response = refusal.response()
        response.headers["Server"] = SERVER_NAME
        response.force_close()
        return response

    def log_exception(self, *args: Any, exc_info: object = None, **more: Any) -> None:
        if not isinstance(exc_info, web.RequestPayloadError):  # a broken body was answered; its rest is broken too
            super().log_exception(*args, exc_info=exc_info, **more)


class _Full(asyncio.Protocol):
    """Refuses a connection over the limit, in the API's shape, without waiting for what it would ask."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection = cast("asyncio.WriteTransport", transport)  # as every stream socket's
        connection.write(_FULL)
        connection.close()


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        if len(self.connections) >= CONNECTIONS_LIMIT:
            return cast("web.RequestHandler", _Full())  # the loop wants any protocol; aiohttp's type says its own
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()
        return _Server(
            plain.request_handler,
            request_factory=plain.request_factory,
            handler_cancellation=True,  # a client that leaves ends its generation
            access_log=None,
            logger=_log,
            keepalive_timeout=IDLE_TIMEOUT,
            lingering_time=LINGERING,
        )
