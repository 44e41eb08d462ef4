"""CORS: nothing unless configured, and then for exact origins only."""

from __future__ import annotations

import pytest

from stoker.daemon.gateway.keys import Access, Keys
from tests.fakes.fake_dispatch import FakeBackend
from tests.fakes.http import Reply, chat, exchange

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
PAGE = "https://chat.example"
EXTENSION = "chrome-extension://abcdef"


def configured() -> FakeBackend:
    """A backend that two pages may use, with a key."""
    return FakeBackend(access=Access(Keys(["sk-local-key"]), origins=(PAGE, EXTENSION)))


async def preflight(origin: str, path: str = CHAT, asks: str = "POST", **more: str) -> Reply:
    headers = [("Host", "localhost"), ("Origin", origin), ("Access-Control-Request-Method", asks), *more.items()]
    return await exchange(configured(), "OPTIONS", path, headers=headers)


async def request_from(origin: str | None, backend: FakeBackend, **fields: object) -> Reply:
    headers = [("Host", "localhost"), ("Authorization", "Bearer sk-local-key")]
    headers += [("Origin", origin)] if origin else []
    return await exchange(backend, "POST", CHAT, chat(**fields), headers)


@pytest.mark.parametrize("origin", [PAGE, EXTENSION])
async def test_preflight_of_a_configured_page(origin: str) -> None:
    """The page is told, without a key, which methods and headers it may send."""
    reply = await preflight(origin, **{"Access-Control-Request-Headers": "authorization, x-stainless-os"})

    assert reply.status == 204
    assert reply.headers["access-control-allow-origin"] == origin
    assert reply.headers["access-control-allow-methods"] == "OPTIONS, POST"
    assert reply.headers["access-control-allow-headers"] == "authorization, x-stainless-os"
    assert reply.headers["access-control-max-age"] == "600"
    assert reply.headers["vary"].startswith("Origin")
    assert "access-control-allow-credentials" not in reply.headers


async def test_preflight_for_a_private_network() -> None:
    """A public page that asks whether it may reach a private address is told so."""
    reply = await preflight(PAGE, **{"Access-Control-Request-Private-Network": "true"})

    assert reply.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize(
    "origin", ["https://chat.example.evil.example", "http://chat.example", "null", f"{PAGE}:444"]
)
async def test_preflight_of_others_is_refused(origin: str) -> None:
    """Only exactly what is configured is let in: scheme, host and port."""
    reply = await preflight(origin)

    assert reply.status == 403
    assert "access-control-allow-origin" not in reply.headers


async def test_preflight_for_nothing_is_a_404() -> None:
    """A path that isn't there allows nothing."""
    assert (await preflight(PAGE, "/nothing")).status == 404


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"messages": 3}], ids=["whole", "stream", "refused"])
async def test_answers_to_a_configured_page(fields: dict[str, object]) -> None:
    """Each answer, also a stream and a refusal, may be read by the page, with the headers that matter."""
    reply = await request_from(PAGE, configured(), **fields)

    assert reply.headers["access-control-allow-origin"] == PAGE
    assert "Retry-After" in reply.headers["access-control-expose-headers"]
    assert reply.headers["vary"] == "Origin"


async def test_answers_to_others_tell_caches_apart() -> None:
    """A program without an origin gets no permission, but what a cache needs to tell both answers apart."""
    reply = await request_from(None, configured())

    assert reply.status == 200
    assert "access-control-allow-origin" not in reply.headers
    assert reply.headers["vary"] == "Origin"


async def test_nothing_is_sent_unless_configured() -> None:
    """By default, no page may read anything, not even one of this machine."""
    reply = await request_from("http://localhost:3000", FakeBackend())

    assert reply.status == 200
    assert not [name for name in reply.headers if name.startswith("access-control") or name == "vary"]


async def test_key_is_needed_all_the_same() -> None:
    """A configured page without a key gets a 401 that it may read."""
    reply = await exchange(configured(), "POST", CHAT, chat(), [("Host", "localhost"), ("Origin", PAGE)])

    assert reply.status == 401
    assert reply.headers["access-control-allow-origin"] == PAGE
