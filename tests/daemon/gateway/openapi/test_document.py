"""The OpenAPI document: valid, complete, and true."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from stoker.daemon.gateway import application
from stoker.daemon.gateway.keys import Access, Keys
from stoker.daemon.gateway.openapi.document import document, encoded
from tests.fakes.fake_dispatch import FakeBackend
from tests.fakes.http import exchange

DOCUMENT: dict[str, Any] = json.loads(encoded())
OPERATIONS = [
    (method, path, operation) for path, item in DOCUMENT["paths"].items() for method, operation in item.items()
]


def test_document_is_valid() -> None:
    """It is an OpenAPI 3.1 document by the specification's own schema."""
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def test_document_has_each_route_that_is_served() -> None:
    """Whoever adds an endpoint adds it to `openapi_endpoints.ENDPOINTS`. HEAD comes with every GET."""
    routes = application(FakeBackend()).router.routes()
    served = {
        (route.method, re.sub(r"\{(\w+)(:[^}]*)?\}", r"{\1}", route.resource.canonical if route.resource else ""))
        for route in routes
        if route.method != "HEAD"
    }

    assert {(method.upper(), path) for method, path, _ in OPERATIONS} == served


@pytest.mark.anyio
async def test_document_is_served() -> None:
    """`/openapi.json` is the document, for whoever may ask."""
    reply = await exchange(FakeBackend(), "GET", "/openapi.json")
    locked = await exchange(FakeBackend(access=Access(Keys(["sk-local-key"]))), "GET", "/openapi.json")

    assert reply.json == DOCUMENT
    assert locked.status == 401


def test_document_is_made_once() -> None:
    """It costs its time only for whoever asks first."""
    assert encoded() is encoded()


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=[f"{m} {p}" for m, p, _ in OPERATIONS])
def test_operation_tells_its_errors_in_its_apis_shape(method: str, path: str, operation: dict[str, Any]) -> None:
    """Every operation has a name of its own, a summary, and refusals in the shape of its API."""
    shape = "AnthropicErrorDocument" if path.startswith("/v1/messages") else "OpenAIErrorDocument"
    default = operation["responses"]["default"]["content"]["application/json"]["schema"]

    assert default == {"$ref": f"#/components/schemas/{shape}"}
    assert [o["operationId"] for _, _, o in OPERATIONS].count(operation["operationId"]) == 1
    assert operation["summary"]


def test_names_are_those_of_apis_and_not_of_modules() -> None:
    """Where two APIs call a type the same, its name begins with the API's; no module or private name is shown."""
    names = set(DOCUMENT["components"]["schemas"])

    assert {"OpenAIErrorDocument", "AnthropicErrorDocument", "OpenAIUserMessage", "AnthropicUserMessage"} <= names
    assert not [name for name in names if "." in name or name.startswith("_")]


def test_streams_are_told() -> None:
    """What can be streamed has the second media type, and nothing else has."""
    streams = {
        path for _, path, operation in OPERATIONS if "text/event-stream" in str(operation["responses"].get("200"))
    }

    assert streams == {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/events"}


def test_fields_come_from_the_types() -> None:
    """What the decoder demands of a request, the document demands too."""
    schema = DOCUMENT["components"]["schemas"]["ChatRequest"]

    assert schema["required"] == ["model", "messages"]
    assert schema["additionalProperties"] is False
    assert document() == DOCUMENT
