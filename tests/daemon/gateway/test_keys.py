"""API keys: who has none is refused, in each API's own shape."""

from __future__ import annotations

import contextlib

import anthropic
import openai
import pytest

from stoker.daemon.gateway.keys import Access, Keys
from tests.fakes.anthropic_client import ask
from tests.fakes.fake_dispatch import FakeBackend
from tests.fakes.http import Reply, chat, exchange, serving

pytestmark = pytest.mark.anyio

KEY = "sk-local-0123456789"
CHAT = "/v1/chat/completions"
PROTECTED = ("/readyz", "/status", "/metrics", "/v1/models", "/v1/models/default", "/nothing")


def locked(*open_endpoints: str) -> FakeBackend:
    """A backend with two keys."""
    return FakeBackend(access=Access(Keys(["another-key", KEY]), open_endpoints))


async def get(path: str, *headers: tuple[str, str], backend: FakeBackend | None = None) -> Reply:
    return await exchange(backend or locked(), "GET", path, headers=[("Host", "localhost"), *headers])


@pytest.mark.parametrize("path", PROTECTED)
async def test_without_a_key_nothing_is_told(path: str) -> None:
    """Where keys are configured, a request without one is a 401 that says how to send it, also for unknown paths."""
    reply = await get(path)

    assert reply.status == 401
    assert reply.headers["www-authenticate"] == 'Bearer realm="stoker"'
    assert reply.error["code"] == "invalid_api_key"
    assert "Authorization: Bearer" in reply.error["message"]


@pytest.mark.parametrize(
    "header",
    [
        ("Authorization", f"Bearer {KEY}"),
        ("authorization", f"bearer  {KEY} "),
        ("X-Api-Key", KEY),
        ("x-api-key", "another-key"),
    ],
)
async def test_key_opens(header: tuple[str, str]) -> None:
    """Any configured key will do, in OpenAI's header or in Anthropic's."""
    assert (await get("/v1/models", header)).status == 200


@pytest.mark.parametrize(
    "header",
    [
        ("Authorization", KEY),
        ("Authorization", f"Basic {KEY}"),
        ("Authorization", "Bearer"),
        ("Authorization", f"Bearer {KEY[:-1]}"),
        ("Authorization", f"Bearer {KEY}x"),
        ("X-Api-Key", KEY.upper()),
        ("X-Api-Key", ""),
        ("X-Api-Key", "ключ"),
    ],
)
async def test_wrong_key_is_refused(header: tuple[str, str]) -> None:
    """What is no key of ours is refused, and not repeated."""
    backend = locked()
    reply = await exchange(backend, "POST", CHAT, chat(), [("Host", "localhost"), header])

    assert reply.status == 401
    assert not backend.dispatch.bodies
    assert KEY not in reply.error["message"]


async def test_refusal_has_the_shape_of_the_api() -> None:
    """Under Anthropic's paths a refusal is Anthropic's."""
    reply = await exchange(locked(), "POST", "/v1/messages", chat())

    assert reply.status == 401
    assert reply.json["type"] == "error"
    assert reply.json["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(("key", "fits"), [(KEY, True), ("sk-wrong", False)])
async def test_sdks_send_their_key(key: str, *, fits: bool) -> None:
    """The vendors' clients get in with `api_key`, and raise their authentication errors with a wrong one."""
    async with (
        serving(locked()) as address,
        openai.AsyncOpenAI(base_url=f"{address.url}/v1", api_key=key, max_retries=0, timeout=20) as first,
        anthropic.AsyncAnthropic(base_url=address.url, api_key=key, max_retries=0, timeout=20) as second,
    ):
        with contextlib.nullcontext() if fits else pytest.raises(openai.AuthenticationError, match="not one of ours"):
            assert (await first.chat.completions.create(**chat())).choices
        with contextlib.nullcontext() if fits else pytest.raises(anthropic.AuthenticationError):
            assert (await second.messages.create(**ask())).content


async def test_one_right_key_is_enough() -> None:
    """A client that sends both headers, one of them with a placeholder, is let in by the other."""
    headers = (("Authorization", "Bearer unused"), ("X-Api-Key", KEY))

    assert (await get("/v1/models", *headers)).status == 200


async def test_liveness_is_always_open() -> None:
    """Whoever watches the process needs no key."""
    assert (await get("/livez")).status == 200


async def test_endpoints_can_be_opened() -> None:
    """`open_endpoints` need no key; the others still do."""
    backend = locked("/readyz")

    assert (await get("/readyz", backend=backend)).status == 200
    assert (await get("/status", backend=backend)).status == 401


@pytest.mark.parametrize("path", PROTECTED[:-1])
async def test_without_configured_keys_all_is_open(path: str) -> None:
    """No keys, no questions: whatever key a client sends is not looked at."""
    assert (await get(path, ("Authorization", "Bearer whatever"), backend=FakeBackend())).status == 200


async def test_foreign_pages_are_refused_before_the_key() -> None:
    """A key does not let another site's page in."""
    reply = await get("/v1/models", ("X-Api-Key", KEY), ("Origin", "https://evil.example"))

    assert reply.status == 403


def test_keys_are_not_kept() -> None:
    """Neither the repr of what guards the API, nor anything in it, has a key's text."""
    keys = Keys([KEY])

    assert KEY not in repr(Access(keys)) + repr(vars(keys))


async def test_page_without_a_key_says_nothing_of_the_daemon() -> None:
    """The page itself comes without a key, since it asks for one; it tells neither phase nor model before."""
    page = (await get("/")).body.decode()

    assert "Locked" in page
    assert "Ready" not in page
    assert "SmolLM2" not in page
    assert "SmolLM2" in (await get("/", ("X-Api-Key", KEY))).body.decode()


@pytest.mark.parametrize("path", ["/assets/page.js", "/assets/page.css", "/assets/uplot.js"])
async def test_pages_files_need_no_key(path: str) -> None:
    """What the page is made of is no secret."""
    assert (await get(path)).status == 200


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/events"), ("POST", "/actions/rewarm"), ("POST", "/actions/restart")]
)
async def test_page_needs_a_key_for_all_else(method: str, path: str) -> None:
    """Neither what the page shows nor what it does is open."""
    reply = await exchange(locked(), method, path)

    assert reply.status == 401


async def test_metrics_may_be_open() -> None:
    """A scraper without a key is served where `open_endpoints` says so."""
    assert (await get("/metrics", backend=locked("/metrics"))).status == 200
