"""Anthropic's endpoints: messages, and how many tokens they would have."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from ....ipc.messages import Delta, Finished
from ...dispatch import Output
from ..backend import Backend
from ..bodies import json_response, read_body
from ..names import require_known
from ..streaming import stream, unfinished
from . import errors as anthropic_errors
from .answer import Events, Gathering, Label, new_label
from .request import read_count, read_messages
from .types import AnswerMessage, MessageTokensCount


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
        call = read_messages(await read_body(request))
        require_known(self._backend.models, call.model)
        label = new_label(call, anthropic_errors.request_id(request))
        async with self._backend.dispatch.generate(call.body) as outputs:
            if call.stream:
                return await stream(request, outputs, Events(label))
            return json_response(await _whole(label, outputs))

    async def count(self, request: web.Request) -> web.Response:
        """Count a conversation, as its answer's usage would."""
        call = read_count(await read_body(request))
        require_known(self._backend.models, call.model)
        return json_response(MessageTokensCount(await self._backend.dispatch.count_tokens(call.body)))


async def _whole(label: Label, outputs: AsyncIterator[Output]) -> AnswerMessage:
    gathering = Gathering(label)
    async for output in outputs:
        if isinstance(output, Delta):
            gathering.add(output)
        elif isinstance(output, Finished):
            return gathering.message(output)
    raise unfinished()
