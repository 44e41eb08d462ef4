"""Requests of foreign pages are refused."""

from __future__ import annotations

import socket

import pytest

from tests.fakes.fake_dispatch import FakeBackend
from tests.fakes.http import chat, connected, exchange, serving

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:80", "localhost.", "app.localhost:1", "127.0.0.1", "127.9.9.9:11500", "[::1]:11500"],
)
async def test_loopback_names_are_ours(host: str) -> None:
    """Whatever means this machine may be named in `Host`."""
    reply = await exchange(FakeBackend(), "GET", "/livez", headers=[("Host", host)])

    assert reply.status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:11500",
        "localhost.evil.example",
        "192.168.1.5",
        "[2001:db8::1]",
        "a b",
        "[::1",
        "",
    ],
)
async def test_foreign_host_is_refused(host: str) -> None:
    """A name that resolves here, but isn't ours, is a rebinding page's."""
    reply = await exchange(FakeBackend(), "GET", "/livez", headers=[("Host", host)])

    assert reply.status == 403
    assert reply.error["code"] == "foreign_host"


@pytest.mark.parametrize("host", ["models.lan", "Models.LAN:11500"])
async def test_configured_host_is_ours(host: str) -> None:
    """The name that the server was told to listen on may be used."""
    reply = await exchange(FakeBackend(host="models.lan"), "GET", "/livez", headers=[("Host", host)])

    assert reply.status == 200


@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
async def test_wildcard_allows_addresses_but_no_names(bound: str) -> None:
    """Bound to every interface, any address may be used, and the machine's own name; no other name."""
    statuses = [
        (await exchange(FakeBackend(host=bound), "GET", "/livez", headers=[("Host", host)])).status
        for host in ("192.168.1.5:11500", "[2001:db8::1]", socket.gethostname(), "evil.example")
    ]

    assert statuses == [200, 200, 200, 403]


async def test_request_needs_one_host() -> None:
    """Two different hosts, or none in HTTP/1.1, are no request."""
    async with serving(FakeBackend()) as address:
        statuses = []
        for hosts in (b"", b"Host: localhost\r\nHost: evil.example\r\n"):
            async with connected(address) as client:
                await client.send(b"GET /livez HTTP/1.1\r\n" + hosts + b"\r\n")
                statuses.append((await client.reply()).status)

    assert statuses == [400, 400]


async def test_old_probe_needs_no_host() -> None:
    """HTTP/1.0 knows requests without `Host`, and no browser sends them."""
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(b"GET /livez HTTP/1.0\r\n\r\n")
        reply = await client.reply()

    assert reply.status == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("https://127.0.0.1", 200),
        ("http://[::1]:11500", 200),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("http://localhost@evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("chrome-extension://abcdef", 403),
        ("http://[::1", 403),
    ],
)
async def test_foreign_origin_is_refused(origin: str, status: int) -> None:
    """A page of another site can't make the browser use the model."""
    headers = [("Host", "localhost"), ("Origin", origin)]
    backend = FakeBackend()
    reply = await exchange(backend, "POST", "/v1/chat/completions", chat(), headers)

    assert reply.status == status
    assert len(backend.dispatch.bodies) == (status == 200)
    if status == 403:
        assert reply.error["code"] == "foreign_origin"
