"""What every answer of the gateway must be, whatever was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from stoker.daemon.dispatch import Output, RequestFailed
from stoker.ipc.errors import ErrorCode, ErrorData
from stoker.ipc.framing import FrameTooLong, Request, encode
from stoker.ipc.messages import CountTokens, Generate
from tests.fakes.fake_dispatch import FakeBackend, FakeDispatch, answer

DONE = "data: [DONE]"
ENDS = {
    "/v1/chat/completions": DONE,
    "/v1/completions": DONE,
    "/v1/responses": "response.",
    "/v1/messages": "message_stop",
}
"""What is in the last event of a stream that ends well, by path."""


class StrictDispatch(FakeDispatch):
    """Answers well, but refuses what the link to a worker could not send."""

    @asynccontextmanager
    async def generate(self, body: Generate) -> AsyncIterator[AsyncIterator[Output]]:
        """Serve the script."""
        _sendable(body)
        async with super().generate(body) as outputs:
            yield outputs
        self.bodies.clear()  # thousands come

    async def count_tokens(self, body: CountTokens) -> int:
        """Count."""
        _sendable(body)
        return 3


def _sendable(body: Generate | CountTokens) -> None:
    try:
        encode(Request(1, body))
    except (FrameTooLong, UnicodeEncodeError, RecursionError) as error:
        raise RequestFailed(ErrorCode.INVALID_PROMPT, str(error), ErrorData()) from error


def answering() -> FakeBackend:
    """A backend with which nothing but a request can be wrong."""
    return FakeBackend(dispatch=StrictDispatch(answer("Hello", " there")))


def judge(path: str, status: int, media: str, body: bytes, *, is_head: bool = False) -> None:
    """Complain of an answer that is neither a good one nor a refusal in its API's shape."""
    assert status < 500, f"{status}: {body[:500]!r}"
    if is_head or status == 204:
        return
    if status >= 400:
        assert media == "application/json"
        _judge_refusal(path.partition("?")[0], json.loads(body))
    elif media.startswith("text/event-stream"):
        assert body.endswith(b"\n\n")
        assert ENDS[path] in body.decode().rstrip("\n").split("\n\n")[-1]
    elif media == "application/json":
        json.loads(body)
    else:
        assert path in {"/", "/metrics"} or path.startswith("/assets/")


def _judge_refusal(path: str, document: Any) -> None:
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        assert set(document) == {"type", "error", "request_id"}
        assert {"type", "message"} <= set(document["error"])
    else:
        assert list(document) == ["error"]
        assert set(document["error"]) == {"message", "type", "param", "code"}
    assert document["error"]["message"]
    assert len(document["error"]["message"]) < 5000
