"""Clients that are slow, silent, or too many, and what they can't do to others."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, suppress

import pytest

from stoker.daemon.gateway import server
from tests.fakes.fake_dispatch import FakeBackend
from tests.fakes.http import Address, RawClient, chat, connected, serving

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
HALVES = (b"", b"GET /liv", b"GET /livez HTTP/1.1\r\nHost: local", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
HALF_A_BODY = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"


async def is_served(address: Address) -> bool:
    """Whether a client that behaves gets its answer, whole and streamed."""
    async with connected(address) as client:
        await client.ask("POST", CHAT, chat())
        whole = await client.reply()
        await client.ask("POST", CHAT, chat(stream=True))
        streamed = await client.reply()
    return whole.status == 200 and streamed.complete


async def test_half_open_connections_delay_nobody() -> None:
    """Beside 100 connections with half a head, and 100 with half a body, requests are answered."""
    async with serving(FakeBackend()) as address, AsyncExitStack() as stack:
        for index in range(200):
            client = await stack.enter_async_context(connected(address))
            await client.send(HALF_A_BODY if index % 2 else HALVES[index // 2 % len(HALVES)])

        assert await is_served(address)


async def test_dripping_senders_delay_nobody() -> None:
    """Bodies that come a byte at a time hold up only themselves, and are answered in the end."""
    body = json.dumps(chat()).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with serving(FakeBackend()) as address, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(address)) for _ in range(50)]
        for client in clients:
            await client.send(head)
        for byte in body[:-1]:
            for client in clients:
                await client.send(bytes((byte,)))
        assert await is_served(address)
        for client in clients:
            await client.send(body[-1:])

        assert [(await client.reply()).status for client in clients] == [200] * 50


@pytest.mark.parametrize("half", HALVES)
async def test_half_a_head_is_given_up(half: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that brings no whole head in time is closed."""
    monkeypatch.setattr(server, "IDLE_TIMEOUT", 0.05)
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(half)
        async with asyncio.timeout(10):
            assert await client.rest() == b""


async def test_dripping_head_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that keep coming don't extend the time for a head."""
    monkeypatch.setattr(server, "IDLE_TIMEOUT", 0.2)
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(b"GET /livez HTTP/1.1\r\nX: ")
        dripping = asyncio.ensure_future(_drip(client))
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                assert await client.rest() == b""
        dripping.cancel()
        await asyncio.wait({dripping})


async def _drip(client: RawClient) -> None:
    with suppress(ConnectionError):
        while True:
            await client.send(b"x")
            await asyncio.sleep(0.01)


async def test_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an answer, a connection is kept for a while, and not longer."""
    monkeypatch.setattr(server, "IDLE_TIMEOUT", 0.5)
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.ask("GET", "/livez")
        assert (await client.reply()).status == 200
        async with asyncio.timeout(10):
            assert await client.rest() == b""


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One connection too many is told so, in shape; those that are open go on, and an end makes room."""
    monkeypatch.setattr(server, "CONNECTIONS_LIMIT", 2)
    async with serving(FakeBackend()) as address, connected(address) as first:
        async with connected(address) as second:
            for client in (first, second):
                await client.ask("GET", "/livez")
                assert (await client.reply()).status == 200
            async with connected(address) as third:
                reply = await third.reply()
                assert await third.rest() == b""
            await first.ask("GET", "/livez")
            assert (await first.reply()).status == 200
        async with asyncio.timeout(10):
            while not await _gets_in(address):
                continue  # the server hears of the end a little later

    assert reply.status == 503
    assert reply.error["code"] == "too_many_connections"
    assert reply.headers["retry-after"] == "1"


async def _gets_in(address: Address) -> bool:
    try:
        async with connected(address) as client:
            await client.ask("GET", "/livez")
            return (await client.reply()).status == 200
    except (ConnectionError, EOFError):  # turned away while it was still asking
        return False


async def test_many_connections_at_once_are_all_served() -> None:
    """A burst of connections is accepted, none is turned away."""
    async with serving(FakeBackend()) as address:
        assert all(await asyncio.gather(*(_gets_in(address) for _ in range(200))))


async def test_long_pipeline_is_served_in_order() -> None:
    """Requests that are sent without waiting for answers are answered one after the other, however many."""
    models = ("default", "gpt-4o")
    async with serving(FakeBackend()) as address, connected(address) as client:
        for index in range(100):
            await client.ask("POST", CHAT, chat(model=models[index % 2]))
        replies = [await client.reply() for _ in range(100)]

    assert [reply.json["model"] for reply in replies] == [models[index % 2] for index in range(100)]
