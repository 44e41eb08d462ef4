"""The OpenAPI 3.1 document of the HTTP API, made of the types that requests and answers are read and written with.

Spec: https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from functools import cache
from typing import Any, TypeAlias

import msgspec
from aiohttp import web

from .... import __version__
from ..anthropic.errors import ErrorDocument as AnthropicError
from ..anthropic.errors import is_anthropic
from ..backend import Backend
from ..errors import ErrorDocument as OpenAIError
from .endpoints import ENDPOINTS, JSON, Body, Endpoint

Json: TypeAlias = dict[str, Any]

PATH = "/openapi.json"
REFERENCE = "#/components/schemas/{name}"

REFUSALS = {
    400: "The request can't be read, or asks for what is not supported; `param` names the field.",
    401: "An API key is needed, where keys are configured.",
    403: "A foreign `Host` or `Origin`.",
    404: "There is no such model, or nothing under this path.",
}
BODY_REFUSALS = {
    408: "The body did not arrive in time.",
    413: "The body is too long.",
    415: "The body has a content coding that this server can't read.",
    429: "Too many requests wait already; `Retry-After` says when to come again.",
    500: "The generation failed, or the server did.",
    503: "No worker can take the request now; `Retry-After` says when to come again.",
}
"""What a request with a body may meet beside the others."""

EVENTS = (
    "With `stream` true: server-sent events in the vendor's sequence, comments in between while the client waits. A "
    "stream that fails ends with an error event and an unclean end of the connection."
)

_MODULE = re.compile(rb"\bstoker\.daemon\.gateway\.([a-z]+)(?:\.[a-z_]+)?\.")
"""Put by msgspec before names that two modules have."""

_APIS = {b"openai": b"OpenAI", b"errors": b"OpenAI", b"responses": b"Responses", b"anthropic": b"Anthropic"}

_PARAMETER = re.compile(r"\{(\w+)\}")


def document(endpoints: Iterable[Endpoint] = ENDPOINTS) -> Json:
    """The whole document."""
    endpoints = tuple(endpoints)
    names = _Names(endpoints)
    paths: Json = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, names)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stoker",
            "version": __version__,
            "summary": "A local language model, kept warm, behind OpenAI's and Anthropic's APIs.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        # A key is needed only where keys are configured: the empty requirement says that there may be none.
        "security": [{}, {"bearer": []}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": names.schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


class _Names:
    """Schemas of all types that endpoints have, and what refers to each."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        types: dict[Body, None] = {OpenAIError: None, AnthropicError: None}
        for endpoint in endpoints:
            types.update(dict.fromkeys(endpoint.also.values()))
            types.update({kind: None for kind in (endpoint.body, endpoint.answer) if kind is not None})
        made = msgspec.json.schema_components(tuple(types), ref_template=REFERENCE)
        references, self.schemas = msgspec.json.decode(_MODULE.sub(_api, msgspec.json.encode(made)))
        self._references = dict(zip(types, references, strict=True))

    def content(self, kind: Body) -> Json:
        """A JSON body of this type."""
        return {JSON: {"schema": self._references[kind]}}


def _api(module: re.Match[bytes]) -> bytes:
    return _APIS[module[1]]


def _operation(endpoint: Endpoint, names: _Names) -> Json:
    operation: Json = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "responses": _responses(endpoint, names),
    }
    if parameters := _PARAMETER.findall(endpoint.path):
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in parameters
        ]
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": names.content(endpoint.body)}
    if endpoint.path == "/livez":
        operation["security"] = [{}]
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    words = re.findall(r"\w+", endpoint.path.removeprefix("/v1"))
    return "_".join([endpoint.method.lower(), *words]) if words else f"{endpoint.method.lower()}_root"


def _responses(endpoint: Endpoint, names: _Names) -> Json:
    error = names.content(AnthropicError if is_anthropic(endpoint.path) else OpenAIError)
    refusals = REFUSALS | (BODY_REFUSALS if endpoint.body is not None else {})
    responses = {str(status): {"description": words, "content": error} for status, words in refusals.items()}
    responses["default"] = {"description": "Any other refusal.", "content": error}
    for status, kind in endpoint.also.items():
        responses[str(status)] = {"description": "Not now.", "content": names.content(kind)}
    if (good := _good(endpoint, names)) is not None:
        responses["200"] = good
    return dict(sorted(responses.items()))


def _good(endpoint: Endpoint, names: _Names) -> Json | None:
    if endpoint.media != JSON:
        return {"description": "The answer.", "content": {endpoint.media: {"schema": {"type": "string"}}}}
    if endpoint.path == PATH:
        return {"description": "The document.", "content": {JSON: {"schema": {"type": "object"}}}}
    if endpoint.answer is None:
        return None
    content = names.content(endpoint.answer)
    if endpoint.streams:
        content["text/event-stream"] = {"schema": {"type": "string", "description": EVENTS}}
    return {"description": "The answer.", "content": content}


@cache
def encoded() -> bytes:
    """The document as JSON; making it takes some 50 ms, once."""
    return msgspec.json.encode(document())


class OpenAPI:
    """Serves the document."""

    def __init__(self, _backend: Backend) -> None:
        """It is the same over every backend."""

    def routes(self) -> list[web.RouteDef]:
        """Where it is."""
        return [web.get(PATH, self.show)]

    async def show(self, _request: web.Request) -> web.Response:
        """The same for everyone, as long as the daemon runs."""
        body = await asyncio.to_thread(encoded)  # streams go on meanwhile
        return web.Response(body=body, content_type=JSON, headers={"Cache-Control": "no-cache"})
