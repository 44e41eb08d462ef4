"""OpenAI's Responses API, without storage: each request brings its whole conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from aiohttp import web

from ....ipc.messages import Generate, ToolConstraint
from ...dispatch import Output
from ..backend import Backend
from ..bodies import json_response, read_body
from ..errors import ApiError
from ..fields import in_terms_of
from ..names import require_known
from ..streaming import stream, unfinished
from .answer import Answer, new_response
from .document import Response
from .request import read_responses


class Responses:
    """The endpoints, over one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        """Where the endpoints are."""
        return [
            web.post("/v1/responses", self.create),
            web.get("/v1/responses/{id}", self.nothing_stored),
            web.delete("/v1/responses/{id}", self.nothing_stored),
            web.get("/v1/responses/{id}/input_items", self.nothing_stored),
            web.post("/v1/responses/{id}/cancel", self.nothing_stored),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        call = read_responses(await read_body(request))
        require_known(self._backend.models, call.model)
        with in_terms_of(_fields(call.body)):
            async with self._backend.dispatch.generate(call.body) as outputs:
                answer = Answer(new_response(call.model, call.shown), call.tools.spaces)
                if call.stream:
                    return await stream(request, outputs, answer)
                return json_response(await _whole(answer, outputs))

    async def nothing_stored(self, request: web.Request) -> web.Response:
        """Refuse to look for a response: all that there was of it went to whoever asked."""
        raise ApiError(
            404,
            f"Response with id '{request.match_info['id']}' not found: nothing is stored on this server, whatever "
            "`store` said. Keep the answer, and send the whole conversation as `input`.",
            param="id",
            code="response_not_found",
        )


async def _whole(answer: Answer, outputs: AsyncIterator[Output]) -> Response:
    async for output in outputs:
        answer.output(output)
    if not answer.complete:
        raise unfinished()
    return answer.response


def _fields(body: Generate) -> Mapping[str | None, str]:
    """What the client calls the fields of the worker's request."""
    return {
        None: "input",
        "prompt": "input",
        "messages": "input",
        "template_args": "reasoning",
        "max_tokens": "max_output_tokens",
        "logprobs": "top_logprobs",
        "constraint": "tool_choice" if isinstance(body.constraint, ToolConstraint) else "text.format",
        "constraint.schema": "text.format.schema",
    }
