"""The page's stream and actions over HTTP."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable

import anyio
import pytest

from stoker.daemon.gateway import runner
from stoker.daemon.gateway.page import feed as feed_module
from stoker.daemon.gateway.page.live import TOKEN_HEADER
from stoker.daemon.steward import Refusal
from stoker.ipc.control_messages import RewarmReport
from stoker.ipc.messages import WarmPrefix
from tests.fakes.http import Address, RawClient, Reply, connected, exchange, serving
from tests.fakes.page_stage import Shown

pytestmark = pytest.mark.anyio

DEADLINE = 10.0
HOST = ("Host", "127.0.0.1")


async def watching(client: RawClient) -> str:
    """Open the stream, and read the token out of it."""
    await client.ask("GET", "/events")
    with anyio.fail_after(DEADLINE):
        head = await client.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        event = await client.until(b"\n\n")
    return str(json.loads(event.partition(b"data: ")[2])["token"])


async def act(address: Address, path: str, headers: Iterable[tuple[str, str]]) -> Reply:
    async with connected(address) as client:
        await client.ask("POST", path, headers=[HOST, *headers])
        return await client.reply()


async def test_stream_begins_with_the_token() -> None:
    """`/events` is a stream that is never cached, and ends when the daemon does."""
    backend = Shown()
    async with serving(backend) as address, connected(address) as client:
        await client.ask("GET", "/events")
        head = (await client.until(b"\r\n\r\n")).decode().lower()
        assert "content-type: text/event-stream" in head
        assert "cache-control: no-store" in head
        assert b"event: hello\n" in await client.until(b"\n\n")


async def test_end_of_the_daemon_is_not_held_up() -> None:
    """An open page doesn't make the daemon wait when it stops; it hears `bye`."""
    serve = runner(Shown(), shutdown_timeout=3600.0)
    await serve.setup()
    from aiohttp import web  # noqa: PLC0415 - only here is a site started by hand

    await web.TCPSite(serve, "127.0.0.1", 0).start()
    async with connected(Address(serve.addresses[0][1])) as client:
        await watching(client)
        with anyio.fail_after(DEADLINE):
            await serve.cleanup()
            assert b"event: bye" in await client.rest()


async def test_head_has_no_end_to_wait_for() -> None:
    """A HEAD of the stream is answered, like that of every GET."""
    assert (await exchange(Shown(), "HEAD", "/events")).status == 200


async def test_viewer_that_leaves_is_forgotten() -> None:
    """A closed page costs nothing more."""
    backend = Shown()
    async with serving(backend) as address:
        async with connected(address) as client:
            await watching(client)
            client.drop()
        async with connected(address) as client:
            await watching(client)


async def test_slow_viewer_is_cut_off_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A viewer that takes nothing is dropped when its mailbox is full; the others hear everything meanwhile."""
    monkeypatch.setattr(feed_module, "SAMPLE_INTERVAL", 0.05)
    encode = feed_module.encoded
    padding = b":" + b" " * 1_000_000 + b"\n"  # a comment, so that buffers fill soon
    monkeypatch.setattr(feed_module, "encoded", lambda *event: padding + encode(*event))
    async with serving(Shown()) as address, connected(address) as slow, connected(address, 4 << 20) as quick:
        await slow.ask("GET", "/events")
        await quick.ask("GET", "/events")
        with anyio.fail_after(60):
            for _ in range(40):  # more than mailbox and buffers of the slow one hold
                await quick.until(b"event: sample\n")
            last = await rest_of(slow)

    assert not last.endswith(b"0\r\n\r\n"), "it was left to read to a clean end"


async def rest_of(client: RawClient) -> bytes:
    """Read what is on its way still, and return the last of it."""
    last = b""
    with contextlib.suppress(ConnectionError):
        while more := await client.some():
            last = more
    return last


@pytest.mark.parametrize("path", ["/actions/rewarm", "/actions/restart"])
async def test_action_is_carried_out(path: str) -> None:
    """With the stream's token, the buttons do what they say; a restart from the page is never a cold one."""
    backend = Shown()
    async with serving(backend) as address, connected(address) as client:
        token = await watching(client)
        own = ("Origin", f"http://127.0.0.1:{address.port}")
        reply = await act_with_host(address, path, [(TOKEN_HEADER, token), own])

    assert reply.status == 200
    assert reply.headers["cache-control"] == "no-store"
    assert (backend.rewarms, backend.restarts) == ((1, []) if path.endswith("rewarm") else (0, [False]))


async def act_with_host(address: Address, path: str, headers: list[tuple[str, str]]) -> Reply:
    async with connected(address) as client:
        await client.ask("POST", path, headers=[("Host", f"127.0.0.1:{address.port}"), *headers])
        return await client.reply()


@pytest.mark.parametrize("token", [None, "", "x", "é"])
async def test_action_needs_the_token(token: str | None) -> None:
    """Without the token nothing happens, and the refusal names the command that programs use."""
    backend = Shown()
    async with serving(backend) as address:
        reply = await act(address, "/actions/restart", [] if token is None else [(TOKEN_HEADER, token)])

    assert (reply.status, reply.error["code"]) == (403, "invalid_token")
    assert "stoker restart" in reply.error["message"]
    assert backend.restarts == []


@pytest.mark.parametrize(
    "header",
    [
        ("Origin", "http://localhost:3000"),
        ("Origin", "http://127.0.0.1:1"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ],
)
async def test_other_pages_can_not_act(header: tuple[str, str]) -> None:
    """Not even with the token may another page act, or read the stream, though it were one of this machine's own."""
    backend = Shown()
    async with serving(backend) as address, connected(address) as client:
        token = await watching(client)
        acted = await act(address, "/actions/restart", [(TOKEN_HEADER, token), header])
        async with connected(address) as other:
            await other.ask("GET", "/events", headers=[HOST, header])
            watched = await other.reply()

    assert (acted.status, watched.status) == (403, 403)
    assert backend.restarts == []


async def test_refusal_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the daemon refuses is a 409 with its reason and the way out."""
    backend = Shown()

    async def refusing(_prompts: tuple[WarmPrefix, ...]) -> RewarmReport:
        raise Refusal("no worker is ready", "wait for ready: stoker ready --wait")

    monkeypatch.setattr(backend, "rewarm", refusing)
    async with serving(backend) as address, connected(address) as client:
        token = await watching(client)
        reply = await act(address, "/actions/rewarm", [(TOKEN_HEADER, token)])

    assert reply.status == 409
    assert reply.error["message"] == "no worker is ready; wait for ready: stoker ready --wait"
