"""Bodies on the wire."""

from __future__ import annotations

import pytest

from tests.fakes.fake_dispatch import FakeBackend
from tests.fakes.http import connected, serving


@pytest.mark.anyio
async def test_slow_body_is_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not come is not waited for without end."""
    monkeypatch.setattr("stoker.daemon.gateway.bodies.BODY_TIMEOUT", 0.05)
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        reply = await client.reply()

    assert reply.status == 408
    assert reply.error["code"] == "request_timeout"


@pytest.mark.anyio
async def test_answers_are_not_kept() -> None:
    """No cache on the way keeps an answer."""
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.ask("GET", "/v1/models")
        reply = await client.reply()

    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["content-type"] == "application/json"
