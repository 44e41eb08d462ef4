"""OpenAI's endpoints: chat completions and models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from ...ipc.messages import Delta, Finished
from ..dispatch import Output, PrefillProgress, Started
from .backend import Backend
from .errors import ApiError
from .names import listed, require_known
from .openai_answer import Chunks, Gathering, Label, Tally, new_label
from .openai_request import ChatCall, read_chat
from .openai_types import ChatCompletion, Model, ModelList
from .sse import EventStream, open_stream

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
            events = await _admitted(outputs)
            require_known(models, call.model)  # before, the id may have been unknown
            label = new_label(call.model, models.id)
            if call.stream:
                return await _streamed(await open_stream(request), call, label, events)
            return _json(await _whole(label, events))

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


async def _admitted(events: AsyncIterator[Output]) -> AsyncIterator[Output]:
    """Wait until a worker has the request; the events from then on."""
    first = await anext(events, None)
    if first is None:
        raise _unfinished()
    # A worker with nothing to prefill may begin with the answer itself.
    return events if isinstance(first, Started) else _beginning_with(first, events)


async def _beginning_with(first: Output, events: AsyncIterator[Output]) -> AsyncIterator[Output]:
    yield first
    async for event in events:
        yield event


async def _streamed(
    stream: EventStream, call: ChatCall, label: Label, events: AsyncIterator[Output]
) -> web.StreamResponse:
    chunks, tally = Chunks(label, include_usage=call.include_usage), Tally()
    await stream.send(chunks.first())
    async for event in events:
        if isinstance(event, Delta):
            tally.add(event)
            if event.text:
                await stream.send(chunks.text(event.text, event.channel))
        elif isinstance(event, Finished):
            await stream.send(chunks.last(event, tally))
            return stream.response
        elif isinstance(event, PrefillProgress):
            await stream.comment(f"prefill {event.done}/{event.total}")
    raise _unfinished()


async def _whole(label: Label, events: AsyncIterator[Output]) -> ChatCompletion:
    gathering = Gathering()
    async for event in events:
        if isinstance(event, Delta):
            gathering.add(event)
        elif isinstance(event, Finished):
            return gathering.completion(event, label)
    raise _unfinished()


def _unfinished() -> ApiError:
    return ApiError(500, "The generation ended without a result.", code="generation_failed")


def _json(document: msgspec.Struct) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(document),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
