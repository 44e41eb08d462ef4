"""OpenAI's endpoints: chat completions and models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from ...ipc.messages import Delta, Finished
from ..dispatch import Output
from .backend import Backend
from .errors import ApiError
from .names import listed, require_known
from .openai_answer import Chunks, Gathering, Label, new_label
from .openai_request import read_chat
from .openai_types import ChatCompletion, Model, ModelList
from .streaming import stream, unfinished

BODY_TIMEOUT = 60.0
"""Seconds for a client to send its whole request: 32 MiB at 4.5 Mbit/s."""


class OpenAI:
    """The endpoints, over one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._created = int(time.time())

    def routes(self) -> list[web.RouteDef]:
        """Where the endpoints are."""
        return [
            web.post("/v1/chat/completions", self.chat),
            web.get("/v1/models", self.models),
            web.get("/v1/models/{id:.+}", self.model),
        ]

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer a chat.

        Nothing is sent before the worker has admitted the request: until then a refusal can have its own status.
        """
        call = read_chat(await _body(request))
        models = self._backend.models
        require_known(models, call.model)
        async with self._backend.dispatch.generate(call.body) as outputs:
            label = new_label(call.model, models.id)
            if call.stream:
                return await stream(request, outputs, Chunks(label, include_usage=call.include_usage))
            return _json(await _whole(label, outputs))

    async def models(self, _request: web.Request) -> web.Response:
        """List the model under each of its names."""
        return _json(ModelList(data=tuple(self._card(name) for name in listed(self._backend.models))))

    async def model(self, request: web.Request) -> web.Response:
        """Show the model that a name stands for."""
        name, models = request.match_info["id"], self._backend.models
        require_known(models, name)
        if models.id is None and name not in listed(models):
            raise ApiError(503, "No model is loaded yet.", code="not_ready", retry_after=1)
        return _json(self._card(name if name in models.aliases else models.id or name))

    def _card(self, name: str) -> Model:
        return Model(id=name, created=self._created)


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await request.read()
    except TimeoutError:
        raise ApiError(408, f"The body did not arrive within {BODY_TIMEOUT:.0f} s.", code="request_timeout") from None


async def _whole(label: Label, events: AsyncIterator[Output]) -> ChatCompletion:
    gathering = Gathering()
    async for event in events:
        if isinstance(event, Delta):
            gathering.add(event)
        elif isinstance(event, Finished):
            return gathering.completion(event, label)
    raise unfinished()


def _json(document: msgspec.Struct) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(document),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
