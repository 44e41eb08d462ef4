"""Liveness, readiness, status and the front page."""

from __future__ import annotations

import msgspec
import pytest

from stoker.ipc.control_messages import Readiness, StatusReport
from tests.fakes.fake_dispatch import READY, FakeBackend, FakeBoard, FakeModels
from tests.fakes.http import exchange

pytestmark = pytest.mark.anyio

WARMING = msgspec.structs.replace(READY, ready=False, phase="warming", warm=False, reason="warming up")


def showing(readiness: Readiness) -> FakeBackend:
    """A backend whose board shows this."""
    return FakeBackend(board=FakeBoard(readiness))


async def test_liveness_asks_no_worker() -> None:
    """`/livez` is 200 whatever the worker does."""
    reply = await exchange(showing(WARMING), "GET", "/livez")

    assert reply.status == 200
    assert reply.json == {"live": True}


async def test_readiness_is_200_only_when_ready() -> None:
    """`/readyz` answers with the snapshot of the board."""
    reply = await exchange(FakeBackend(), "GET", "/readyz")

    assert reply.status == 200
    assert msgspec.json.decode(reply.body, type=Readiness) == READY
    assert reply.headers["cache-control"] == "no-store"


async def test_readiness_is_503_before() -> None:
    """Before ready, `/readyz` has the same body, and says when to ask again."""
    reply = await exchange(showing(WARMING), "GET", "/readyz")

    assert reply.status == 503
    assert reply.headers["retry-after"] == "1"
    assert {name: reply.json[name] for name in ("ready", "phase", "warm", "reason", "generation")} == {
        "ready": False,
        "phase": "warming",
        "warm": False,
        "reason": "warming up",
        "generation": 3,
    }


async def test_readiness_knows_when_the_next_try_is() -> None:
    """Where the daemon knows when it tries again, `/readyz` says so in whole seconds."""
    backoff = msgspec.structs.replace(WARMING, phase="backoff", retry_after=12.1)
    reply = await exchange(showing(backoff), "GET", "/readyz")

    assert reply.headers["retry-after"] == "13"


async def test_status_is_the_control_sockets() -> None:
    """`/status` is the `StatusReport` of the control socket, as JSON."""
    backend = FakeBackend()
    reply = await exchange(backend, "GET", "/status")

    assert reply.status == 200
    assert reply.headers["cache-control"] == "no-store"
    assert msgspec.json.decode(reply.body, type=StatusReport) == await backend.status()


async def test_front_page_says_where_to_send_requests() -> None:
    """A person who opens the address sees the phase, the model and the base URL."""
    reply = await exchange(FakeBackend(), "GET", "/", headers=[("Host", "localhost:11500")])

    page = reply.body.decode()
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "<strong>ready</strong>, warm" in page
    assert "models/SmolLM2-135M-Instruct" in page
    assert "http://localhost:11500/v1" in page


async def test_front_page_escapes_what_it_shows() -> None:
    """Neither the model's name nor a reason can put markup into the page."""
    backend = showing(msgspec.structs.replace(WARMING, reason="<script>1</script>"))
    backend.models = FakeModels(id="<b>model</b>")
    page = (await exchange(backend, "GET", "/")).body.decode()

    assert "<script>" not in page
    assert "&lt;script&gt;1&lt;/script&gt;" in page
    assert "&lt;b&gt;model&lt;/b&gt;" in page
