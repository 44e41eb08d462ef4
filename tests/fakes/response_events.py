"""A Responses stream as a strict client reads it: each event checked against the vendor's own types."""

from __future__ import annotations

import json
from typing import Any

import pydantic
from openai.types.responses import Response, ResponseStreamEvent

_EVENT: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ResponseStreamEvent)


def checked(document: dict[str, Any]) -> Response:
    """A response that has every field which the vendor's type requires, of the right kind."""
    return Response.model_validate(document, strict=False)


def events(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream; names, numbers and types are as they must be. Comments are skipped."""
    found: list[dict[str, Any]] = []
    for block in data.decode().split("\n\n")[:-1]:
        if block.startswith(":"):
            continue
        name, _, line = block.partition("\n")
        event: dict[str, Any] = json.loads(line.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == len(found)
        _EVENT.validate_python(event)
        found.append(event)
    return found


def types(found: list[dict[str, Any]]) -> list[str]:
    """What each event is, without the common beginning."""
    return [event["type"].removeprefix("response.") for event in found]
