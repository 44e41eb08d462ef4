"""Whatever body comes, it is understood or refused by name; and what is understood can be sent to the worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.daemon.gateway.errors import ApiError
from stoker.daemon.gateway.openai.request import ChatCall, CompletionCall, read_chat, read_completion
from stoker.daemon.gateway.openai.types import ChatRequest, CompletionRequest
from stoker.ipc.messages import Generate
from tests.fakes.http import chat
from tests.fakes.openai_requests import CALL, completion, tool

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
LIKELY: list[Any] = [
    0,
    1,
    -1,
    0.5,
    "none",
    "auto",
    "required",
    {},
    [],
    ["a"],
    [1],
    [[1]],
    {"1": 1},
    {"type": "json_object"},
    {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
    {"type": "function", "function": {"name": "f"}},
    [tool("f")],
    [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
    [{"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "", "tool_call_id": "c1"}],
]
VALUES = st.sampled_from(LIKELY) | ANYTHING


def bodies(request: type[msgspec.Struct], good: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Good requests of which some fields have any value, one of which may have any name."""
    names = st.sampled_from(request.__struct_fields__) | st.text(max_size=4)
    return st.dictionaries(names, VALUES, max_size=4).map(lambda changed: {**good, **changed})


def check(read: Callable[[bytes], ChatCall | CompletionCall], body: dict[str, Any]) -> None:
    """It is refused with a code, or can be sent as it was meant."""
    asked: tuple[Generate, ...] = ()
    refused: ApiError | None = None
    try:
        asked = read(json.dumps(body).encode()).bodies
    except ApiError as error:
        refused = error
    assert bool(asked) is (refused is None)
    assert refused is None or (refused.status == 400 and refused.fault.code)
    assert all(msgspec.json.decode(msgspec.json.encode(each), type=Generate) == each for each in asked)


@given(body=bodies(ChatRequest, chat()))
@settings(max_examples=150, deadline=None)
def test_any_chat(body: dict[str, Any]) -> None:
    """A chat with any values in its fields."""
    check(read_chat, body)


@given(body=bodies(CompletionRequest, completion()))
@settings(max_examples=150, deadline=None)
def test_any_completion(body: dict[str, Any]) -> None:
    """A completion with any values in its fields."""
    check(read_completion, body)


@given(data=st.binary(max_size=40))
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("read", [read_chat, read_completion])
def test_any_bytes(read: Callable[[bytes], object], data: bytes) -> None:
    """Bytes that are no request at all."""
    with pytest.raises(ApiError):
        read(data)
