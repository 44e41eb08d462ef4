"""A request's body read from the wire, and an answer's JSON put on it; the same for every API."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from .errors import ApiError

BODY_TIMEOUT = 60.0
"""Seconds for a client to send its whole request: 32 MiB at 4.5 Mbit/s."""


async def read_body(request: web.Request) -> bytes:
    """The whole body.

    Raises:
        ApiError: 408, if it does not come in time.
    """
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await request.read()
    except TimeoutError:
        raise ApiError(408, f"The body did not arrive within {BODY_TIMEOUT:.0f} s.", code="request_timeout") from None


def json_response(document: msgspec.Struct) -> web.Response:
    """An answer in JSON, which nobody is to keep."""
    return web.Response(
        body=msgspec.json.encode(document),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
