"""What a refusal looks like."""

from __future__ import annotations

import json

import pytest

from stoker.daemon.dispatch import RequestFailed
from stoker.daemon.gateway.errors import ApiError, explained, whole_seconds
from stoker.ipc.errors import ErrorCode, ErrorData
from stoker.ipc.framing import FrameTooLong


def test_document_has_all_four_members() -> None:
    """An error without param and code says null, as OpenAI does."""
    assert json.loads(ApiError(400, "no").document()) == {
        "error": {"message": "no", "type": "invalid_request_error", "param": None, "code": None}
    }


@pytest.mark.parametrize(("given", "said"), [(None, "1"), (0.0, "1"), (0.2, "1"), (1.1, "2"), (60.0, "60")])
def test_retry_after_is_a_whole_number_and_never_now(given: float | None, said: str) -> None:
    """`Retry-After` is rounded up, and at least 1."""
    assert whole_seconds(given) == said


def test_conversation_over_the_frame_limit_is_a_413() -> None:
    """What is too long for the worker's socket is the client's to shorten."""
    assert explained(FrameTooLong(16)).status == 413


def test_request_that_ends_workers_is_not_to_be_tried_again() -> None:
    """SDKs try a 500 again by themselves; one that a request has earned says that they shall not."""
    earned = explained(RequestFailed(ErrorCode.GENERATION_FAILED, "it ended two workers", ErrorData()))
    fate = explained(RequestFailed(ErrorCode.GENERATION_FAILED, "the engine failed", ErrorData(retryable=True)))

    assert (earned.status, earned.headers["x-should-retry"]) == (500, "false")
    assert "x-should-retry" not in fate.headers


def test_message_is_short_and_can_be_sent() -> None:
    """What a message quotes of a request is cut short, and what UTF-8 can't carry is replaced."""
    error = json.loads(ApiError(400, "no: \ud800" + "x" * 100_000, param="\ud800").document())["error"]

    assert error["message"].startswith("no: ?xxx")
    assert len(error["message"]) < 1100
    assert error["param"] == "?"


def test_what_is_nested_too_deeply_is_the_clients() -> None:
    """Where the interpreter's depth is used up, a body is to blame."""
    assert explained(RecursionError()).status == 400
