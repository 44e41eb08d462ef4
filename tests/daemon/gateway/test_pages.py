"""Liveness, readiness, status and the front page."""

from __future__ import annotations

import re

import msgspec
import pytest

from stoker.daemon.gateway.page.assets import Assets
from stoker.ipc.control_messages import Readiness, StatusReport
from tests.fakes.fake_dispatch import READY, FakeBackend, FakeBoard, FakeModels
from tests.fakes.http import connected, exchange, serving

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
    """A person who opens the address sees the headline, the model and the base URL, even without JavaScript."""
    reply = await exchange(FakeBackend(), "GET", "/", headers=[("Host", "localhost:11500")])

    page = reply.body.decode()
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    assert "Ready and warm</h1>" in page
    assert "models/SmolLM2-135M-Instruct" in page
    assert "http://localhost:11500/v1" in page


async def test_front_page_runs_only_its_own_files() -> None:
    """No script, style or handler of the page is inline, nothing comes from elsewhere, and the policy says so."""
    reply = await exchange(FakeBackend(), "GET", "/")

    page = reply.body.decode()
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", page)
    assert set(re.findall(r'(?:src|href)="(?!/)([^"]*)"', page)) == set()


async def test_front_page_escapes_what_it_shows() -> None:
    """Neither the model's name nor a reason can put markup into the page."""
    backend = showing(msgspec.structs.replace(WARMING, reason="<i>1</i>"))
    backend.models = FakeModels(id="<b>model</b>")
    page = (await exchange(backend, "GET", "/")).body.decode()

    assert "<i>" not in page
    assert "&lt;i&gt;1&lt;/i&gt;" in page
    assert "&lt;b&gt;model&lt;/b&gt;" in page


async def test_page_is_small() -> None:
    """The page and all its files are less than 150 KB, uncompressed."""
    async with serving(FakeBackend()) as address, connected(address) as client:
        total = 0
        for path in ("/", *(f"/assets/{name}" for name in Assets()._files)):
            await client.ask("GET", path)
            total += len((await client.reply()).body)

    assert total < 150_000


async def test_metrics_are_text_for_prometheus() -> None:
    """`/metrics` has the text format's media type, is not cached, and knows the phase."""
    reply = await exchange(showing(WARMING), "GET", "/metrics")

    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    assert 'stoker_phase{phase="warming"} 1.0' in reply.body.decode()
