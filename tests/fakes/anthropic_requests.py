"""Anthropic requests, read or refused, for tests of what becomes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stoker.daemon.gateway.anthropic.request import MessagesCall, read_messages
from stoker.daemon.gateway.errors import ApiError
from stoker.ipc.messages import ChatPrompt
from tests.fakes.anthropic_client import ask

MARK = {"cache_control": {"type": "ephemeral"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
JSON = {"type": "json_schema", "schema": SCHEMA}
USE = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}


def read(**fields: Any) -> MessagesCall:
    """A good request with these fields changed, read."""
    return read_messages(json.dumps(ask(**fields)).encode())


def prompt(**fields: Any) -> ChatPrompt:
    """Its prompt."""
    found = read(**fields).body.prompt
    assert isinstance(found, ChatPrompt)
    return found


def refusal(**fields: Any) -> ApiError:
    """The refusal of a request with these fields."""
    with pytest.raises(ApiError) as caught:
        read(**fields)
    assert caught.value.status == 400
    return caught.value


def user(content: Any) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": content}
