"""How the application is run: connections, their limits, and bytes that are no HTTP."""

from __future__ import annotations

import logging

from aiohttp import web

from .app import application
from .backend import Backend
from .errors import ApiError

IDLE_TIMEOUT = 75.0
"""Seconds that a connection may stay without a request, or with half a request's head."""

_log = logging.getLogger("stoker.gateway.http")


def _without_details(record: logging.LogRecord) -> bool:
    # aiohttp logs exceptions whole, and those may quote what was sent.
    if record.exc_info and record.exc_info[0] is not None:
        record.msg = f"{record.msg}: {record.exc_info[0].__name__}"
        record.exc_info = None
    return True


_log.addFilter(_without_details)


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
        response = ApiError(status, "This is not a valid HTTP request.", code="invalid_http").response()
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
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
        )
