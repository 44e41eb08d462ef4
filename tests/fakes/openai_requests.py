"""Requests of OpenAI's APIs, read; and what comes back held against the SDK's own types."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import pydantic
import pytest

from stoker.daemon.gateway.errors import ApiError
from stoker.daemon.gateway.openai.request import ChatCall, CompletionCall, read_chat, read_completion
from stoker.ipc.messages import ChatPrompt
from tests.fakes.http import chat

M = TypeVar("M", bound=pydantic.BaseModel)

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def tool(name: str, **function: Any) -> dict[str, Any]:
    """A tool, as clients declare it."""
    return {"type": "function", "function": {"name": name, **function}}


def read(**fields: Any) -> ChatCall:
    """A good chat request with these fields changed, read."""
    return read_chat(json.dumps(chat(**fields)).encode())


def prompt_of(**fields: Any) -> ChatPrompt:
    """What the template gets for such a request."""
    prompt = read(**fields).body.prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


def refusal(**fields: Any) -> ApiError:
    """The refusal of a chat request with these fields."""
    with pytest.raises(ApiError) as caught:
        read(**fields)
    assert caught.value.status == 400
    return caught.value


def completion(**fields: Any) -> dict[str, Any]:
    """The body of a completion request."""
    return {"model": "default", "prompt": "Once", **fields}


def read_text(**fields: Any) -> CompletionCall:
    """A good completion request with these fields changed, read."""
    return read_completion(json.dumps(completion(**fields)).encode())


def text_refusal(**fields: Any) -> ApiError:
    """The refusal of a completion request with these fields."""
    with pytest.raises(ApiError) as caught:
        read_text(**fields)
    assert caught.value.status == 400
    return caught.value


def checked(kind: type[M], document: Mapping[str, Any]) -> M:
    """A document in the SDK's own type, to the letter, and with nothing added but what the documentation says."""
    model = kind.model_validate(document, strict=True)
    assert set(_added(model)) <= {"reasoning_content"}
    return model


def _added(value: object) -> Iterator[str]:
    if isinstance(value, pydantic.BaseModel):
        yield from value.model_extra or {}
        for name in type(value).model_fields:
            yield from _added(getattr(value, name))
    elif isinstance(value, list):
        for each in value:
            yield from _added(each)
