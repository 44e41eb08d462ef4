"""Refusals as Anthropic's clients expect them."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from anthropic.types.shared.error_type import ErrorType

from stoker.daemon.gateway import app
from stoker.daemon.gateway.anthropic.errors import KINDS, document, is_anthropic
from stoker.daemon.gateway.errors import ApiError
from stoker.daemon.gateway.keys import Access, Keys
from tests.fakes.fake_dispatch import FakeBackend
from tests.fakes.http import Reply, exchange

pytestmark = pytest.mark.anyio

MESSAGES = "/v1/messages"


def refusal(reply: Reply) -> dict[str, Any]:
    """The error of a reply, which must have Anthropic's shape."""
    assert reply.headers["content-type"] == "application/json"
    body = reply.json
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["request_id"] == reply.headers["request-id"]
    assert body["request_id"].startswith("req_")
    return dict(body["error"])


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (408, "invalid_request_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
        (529, "overloaded_error"),
    ],
)
def test_status_has_its_type(status: int, kind: str) -> None:
    """Each status is told in Anthropic's words."""
    assert json.loads(document(ApiError(status, "no", code="why"), "req_1")) == {
        "type": "error",
        "error": {"type": kind, "message": "no", "details": {"error_code": "why"}},
        "request_id": "req_1",
    }


def test_types_are_those_of_the_sdk() -> None:
    """No type is of our invention: the SDK knows each, or Anthropic's reference does."""
    assert set(KINDS.values()) - set(get_args(ErrorType)) == {"request_too_large"}


def test_error_without_a_code_has_no_details() -> None:
    """`details` is only there where it says something."""
    assert "details" not in json.loads(document(ApiError(400, "no"), "req_1"))["error"]


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("/v1/messages", True),
        ("/v1/messages/count_tokens", True),
        ("/v1/messages/batches", True),
        ("/v1/messagesque", False),
        ("/v1/chat/completions", False),
        ("/", False),
    ],
)
def test_path_tells_the_api(path: str, ours: bool) -> None:
    """What is at or under `/v1/messages` is Anthropic's, and nothing else."""
    assert is_anthropic(path) is ours


async def test_unknown_path_under_messages_is_a_404_in_shape() -> None:
    """An endpoint of Anthropic's that is not built is told in Anthropic's shape."""
    reply = await exchange(FakeBackend(), "POST", f"{MESSAGES}/batches", {})

    assert reply.status == 404
    assert refusal(reply)["type"] == "not_found_error"


async def test_foreign_origin_is_a_403_in_shape() -> None:
    """What the guard refuses has the shape of the API that was called."""
    headers = [("Host", "127.0.0.1"), ("Origin", "https://evil.example")]
    reply = await exchange(FakeBackend(), "POST", MESSAGES, {}, headers)

    assert reply.status == 403
    assert refusal(reply)["type"] == "permission_error"


async def test_missing_key_is_a_401_in_shape() -> None:
    """Where keys are configured, Anthropic's clients are told in their terms, and let in with their own header."""
    backend = FakeBackend(access=Access(Keys(["sk-1"])))
    refused = await exchange(backend, "POST", MESSAGES, {}, [("Host", "127.0.0.1")])
    admitted = await exchange(backend, "POST", MESSAGES, {}, [("Host", "127.0.0.1"), ("x-api-key", "sk-1")])

    assert refused.status == 401
    assert refusal(refused)["type"] == "authentication_error"
    assert refusal(admitted)["type"] == "invalid_request_error", "the key was good; the body was not"


async def test_long_body_is_a_413_in_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body over the limit is told in Anthropic's shape, before an endpoint saw it."""
    monkeypatch.setattr(app, "BODY_LIMIT", 10)
    reply = await exchange(FakeBackend(), "POST", MESSAGES, b" " * 11)

    assert reply.status == 413
    assert refusal(reply)["type"] == "request_too_large"


async def test_other_paths_keep_their_shape() -> None:
    """Errors of the OpenAI API are as before, without Anthropic's header."""
    reply = await exchange(FakeBackend(), "GET", "/v1/nothing")

    assert reply.error["code"] == "unknown_url"
    assert "request-id" not in reply.headers
