"""Bytes that are no HTTP, and the end of the server."""

from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from stoker.daemon.gateway import runner, server
from tests.fakes.fake_dispatch import STARTED, FakeBackend, Hold, answer, delta, playing
from tests.fakes.http import Address, chat, connected, serving

CHAT = "/v1/chat/completions"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"the rain in Spain\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["no request", "bad header", "long header", "bad length", "two lengths"],
)
@pytest.mark.anyio
async def test_no_http_is_a_400_that_ends_the_connection(data: bytes) -> None:
    """Whatever can't be read, or could be read in two ways, is refused in the API's shape and quotes nothing."""
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(data)
        reply = await client.reply()
        rest = await client.rest()

    assert reply.status == 400
    assert reply.error["code"] == "invalid_http"
    assert "Spain" not in reply.error["message"]
    assert rest == b""


@pytest.mark.anyio
async def test_library_log_quotes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What the HTTP library logs of an exception is its type: its text may quote what was sent."""
    server._log.error("Unhandled exception", exc_info=ValueError("the rain in Spain"))

    assert "Unhandled exception: ValueError" in caplog.text
    assert "Spain" not in caplog.text


def test_loop_log_quotes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody fetched is logged by the event loop without its text."""

    async def fail() -> None:
        raise ValueError("the rain in Spain")

    async def forget() -> None:
        await asyncio.wait({asyncio.ensure_future(fail())})
        gc.collect()

    asyncio.run(forget())

    assert "never retrieved: ValueError" in caplog.text
    assert "Spain" not in caplog.text


@pytest.mark.anyio
async def test_stop_lets_running_answers_end() -> None:
    """An answer that ends within the shutdown time is delivered whole."""
    hold = Hold()
    backend = playing(STARTED, hold, *answer("Hi")[1:])
    async with AsyncExitStack() as stack:
        async with serving(backend) as address:
            client = await stack.enter_async_context(connected(address))
            await client.ask("POST", CHAT, chat(stream=True))
            await hold.reached.wait()
            asyncio.get_running_loop().call_soon(hold.let_go.set)
        reply = await client.reply()

    assert reply.complete
    assert reply.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.anyio
async def test_stop_breaks_off_what_does_not_end() -> None:
    """An answer that takes longer is given up, and has no clean end."""
    backend = playing(STARTED, delta("Once"), Hold())
    async with AsyncExitStack() as stack:
        serve = runner(backend, shutdown_timeout=0.01)
        await serve.setup()
        await web.TCPSite(serve, "127.0.0.1", 0).start()
        client = await stack.enter_async_context(connected(Address(serve.addresses[0][1])))
        await client.ask("POST", CHAT, chat(stream=True))
        head = await client.until(b"Once")
        await serve.cleanup()
        rest = await client.rest()

    assert backend.dispatch.left_early.is_set()
    assert b"[DONE]" not in head + rest
    assert not rest.endswith(b"0\r\n\r\n")
