"""The gateway on a real loopback socket, and clients that see its bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import openai
from aiohttp import web

from stoker.daemon.gateway import Backend, runner


@dataclass(frozen=True)
class Address:
    """Where a gateway listens."""

    port: int

    @property
    def url(self) -> str:
        """Its base."""
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(backend: Backend, port: int = 0) -> AsyncIterator[Address]:
    """Serve `backend`, on a free port unless it is to be a certain one."""
    serve = runner(backend, shutdown_timeout=0.2)
    await serve.setup()
    await web.TCPSite(serve, "127.0.0.1", port, reuse_address=True).start()
    try:
        yield Address(serve.addresses[0][1])
    finally:
        await serve.cleanup()


@dataclass(frozen=True)
class Reply:
    """An HTTP response, as it was on the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool
    """Whether the body had its proper end."""

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error, which must have OpenAI's shape."""
        assert self.headers["content-type"] == "application/json"
        document = self.json
        assert list(document) == ["error"]
        assert set(document["error"]) == {"message", "type", "param", "code"}
        return dict(document["error"])


class RawClient:
    """One connection, spoken to in bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Write bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        headers: Iterable[tuple[str, str]] | None = None,
    ) -> None:
        """Write a request; without `headers` it names a good `Host`."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = [f"{name}: {value}" for name, value in headers or [("Host", "127.0.0.1")]]
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, f"Content-Length: {len(data)}", "", ""])
        await self.send(head.encode() + data)

    async def until(self, mark: bytes) -> bytes:
        """Read up to and including `mark`."""
        return await self._reader.readuntil(mark)

    async def some(self) -> bytes:
        """Read what is there, at most 64 KB; nothing at the end."""
        return await self._reader.read(1 << 16)

    async def reply(self, *, to_head: bool = False) -> Reply:
        """Read a whole response, or as much of it as comes before the connection ends."""
        status_line, *lines = (await self.until(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        if to_head or status_line.split()[1] in {"100", "204"}:
            body, complete = b"", True
        elif headers.get("transfer-encoding") == "chunked":
            body, complete = await self._chunks()
        else:
            body, complete = await self._reader.readexactly(int(headers["content-length"])), True
        return Reply(int(status_line.split()[1]), headers, body, complete)

    async def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        try:
            while size := int(await self._reader.readline(), 16):
                body += (await self._reader.readexactly(size + 2))[:-2]
        except (ValueError, asyncio.IncompleteReadError):
            return body, False
        await self._reader.readline()
        return body, True

    async def rest(self) -> bytes:
        """What comes until the other end closes."""
        return await self._reader.read()

    def drop(self) -> None:
        """Leave without a word."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Leave properly."""
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)


@asynccontextmanager
async def connected(address: Address, limit: int = 1 << 16) -> AsyncIterator[RawClient]:
    """A connection to a gateway; half of what it takes before anybody reads is `limit` bytes."""
    client = RawClient(*await asyncio.open_connection("127.0.0.1", address.port, limit=limit))
    try:
        yield client
    finally:
        await client.close()


async def exchange(
    backend: Backend,
    method: str,
    path: str,
    body: bytes | Mapping[str, Any] | None = None,
    headers: Iterable[tuple[str, str]] | None = None,
) -> Reply:
    """Serve `backend` for one request."""
    async with serving(backend) as address, connected(address) as client:
        await client.ask(method, path, body, headers)
        return await client.reply(to_head=method == "HEAD")


def chat(**fields: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": "default", "messages": [{"role": "user", "content": "Hi"}], **fields}


@asynccontextmanager
async def sdk(address: Address) -> AsyncIterator[openai.AsyncOpenAI]:
    """The real client, which doesn't retry."""
    async with openai.AsyncOpenAI(
        base_url=f"{address.url}/v1", api_key="unused", max_retries=0, timeout=20
    ) as client:
        yield client


def events_of(body: bytes) -> list[Any]:
    """The data of a stream's events; `[DONE]` as it is."""
    events = [event.removeprefix("data: ") for event in body.decode().split("\n\n")]
    assert events.pop() == "", "the stream ends with a complete event"
    return [event if event == "[DONE]" else json.loads(event) for event in events]
