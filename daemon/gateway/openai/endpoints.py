"""OpenAI's endpoints: chat completions, completions and models."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import msgspec
from aiohttp import web

from ....ipc.messages import Generate, ToolConstraint
from ..backend import Backend
from ..bodies import json_response, read_body
from ..fields import in_terms_of
from ..merging import Merged, generations
from ..names import listed, require_known
from ..streaming import stream, unfinished
from .answer import Model, ModelList, WholeChat, new_label
from .chunks import ChatChunks
from .completions import TextChunks, WholeText
from .request import ChatCall, CompletionCall, read_chat, read_completion


class OpenAI:
    """The endpoints, over one backend.

    Nothing is sent before a worker has admitted the request, or the client's patience is to be spared: until then a
    refusal can have its own status.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._created = int(time.time())

    def routes(self) -> list[web.RouteDef]:
        """Where the endpoints are."""
        return [
            web.post("/v1/chat/completions", self.chat),
            web.post("/v1/completions", self.completion),
            web.get("/v1/models", self.models),
            web.get("/v1/models/{id:.+}", self.model),
        ]

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer a chat."""
        call = read_chat(await read_body(request))
        require_known(self._backend.models, call.model)
        with in_terms_of(_chat_fields(call.body)):
            async with generations(self._backend.dispatch, call.bodies) as outputs:
                return await self._told_chat(request, call, outputs)

    async def _told_chat(
        self, request: web.Request, call: ChatCall, outputs: AsyncIterator[Merged]
    ) -> web.StreamResponse:
        label = new_label("chatcmpl", call.model, self._backend.models.id)
        choices = len(call.bodies)
        if call.stream:
            chunks = ChatChunks(label, include_usage=call.include_usage, choices=choices, tools=call.tools)
            return await stream(request, outputs, chunks)
        return await _whole(outputs, WholeChat(label, choices=choices, logprobs=call.body.logprobs is not None))

    async def completion(self, request: web.Request) -> web.StreamResponse:
        """Go on with one or several texts."""
        call = read_completion(await read_body(request))
        require_known(self._backend.models, call.model)
        with in_terms_of(_COMPLETION_FIELDS):
            async with generations(self._backend.dispatch, call.bodies) as outputs:
                return await self._told_completion(request, call, outputs)

    async def _told_completion(
        self, request: web.Request, call: CompletionCall, outputs: AsyncIterator[Merged]
    ) -> web.StreamResponse:
        label = new_label("cmpl", call.model, self._backend.models.id)
        choices, logprobs = len(call.bodies), call.bodies[0].logprobs
        if call.stream:
            usage = call.include_usage
            chunks = TextChunks(label, include_usage=usage, choices=choices, n=call.n, logprobs=logprobs)
            return await stream(request, outputs, chunks)
        return await _whole(outputs, WholeText(label, choices=choices, n=call.n, logprobs=logprobs))

    async def models(self, _request: web.Request) -> web.Response:
        """List the model under each of its names."""
        return json_response(ModelList(data=tuple(self._card(name) for name in listed(self._backend.models))))

    async def model(self, request: web.Request) -> web.Response:
        """Show the model that a name stands for."""
        name, models = request.match_info["id"], self._backend.models
        require_known(models, name)
        return json_response(self._card(name if name in models.aliases else models.id))

    def _card(self, name: str) -> Model:
        return Model(id=name, created=self._created)


class _Gathering(Protocol):
    """A whole answer in the making."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""

    def add(self, output: Merged) -> None:
        """Take an output."""

    def document(self) -> msgspec.Struct:
        """The answer."""


async def _whole(outputs: AsyncIterator[Merged], gathering: _Gathering) -> web.Response:
    async for output in outputs:
        gathering.add(output)
    if not gathering.complete:
        raise unfinished()
    return json_response(gathering.document())


# -- what the worker refuses, in the client's terms --------------------------------------------------------

_COMPLETION_FIELDS: Mapping[str | None, str] = {None: "prompt", "messages": "prompt"}


def _chat_fields(body: Generate) -> Mapping[str | None, str]:
    """What the client calls the fields of its request."""
    constraint = "tool_choice" if isinstance(body.constraint, ToolConstraint) else "response_format"
    return {
        None: "messages",
        "prompt": "messages",
        "template_args": "chat_template_kwargs",
        "constraint": constraint,
        "constraint.schema": "response_format.json_schema.schema",
    }
