"""Anthropic's endpoints: messages, and how many tokens they would have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from ...ipc.messages import Delta, Finished
from ..dispatch import Output
from . import anthropic_errors
from .anthropic_answer import Events, Gathering, Label, new_label
from .anthropic_request import read_count, read_messages
from .anthropic_types import AnswerMessage, MessageTokensCount
from .backend import Backend
from .errors import ApiError
from .names import require_known
from .streaming import stream, unfinished

BODY_TIMEOUT = 60.0
"""Seconds for a client to send its whole request: 32 MiB at 4.5 Mbit/s."""


class Anthropic:
    """The endpoints, over one backend.

    No header is needed: `anthropic-version` may be any or missing, and betas are known by the fields that they bring.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        """Where the endpoints are."""
        return [
            web.post(anthropic_errors.MESSAGES, self.messages),
            web.post(f"{anthropic_errors.MESSAGES}/count_tokens", self.count),
        ]

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """Answer a conversation."""
        call = read_messages(await _body(request))
        require_known(self._backend.models, call.model)
        label = new_label(call, anthropic_errors.request_id(request))
        async with self._backend.dispatch.generate(call.body) as outputs:
            if call.stream:
                return await stream(request, outputs, Events(label))
            return _json(await _whole(label, outputs))

    async def count(self, request: web.Request) -> web.Response:
        """Count a conversation, as its answer's usage would."""
        call = read_count(await _body(request))
        require_known(self._backend.models, call.model)
        return _json(MessageTokensCount(await self._backend.dispatch.count_tokens(call.body)))


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await request.read()
    except TimeoutError:
        raise ApiError(408, f"The body did not arrive within {BODY_TIMEOUT:.0f} s.", code="request_timeout") from None


async def _whole(label: Label, outputs: AsyncIterator[Output]) -> AnswerMessage:
    gathering = Gathering(label)
    async for output in outputs:
        if isinstance(output, Delta):
            gathering.add(output)
        elif isinstance(output, Finished):
            return gathering.message(output)
    raise unfinished()


def _json(document: msgspec.Struct) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(document),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
