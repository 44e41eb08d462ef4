"""A client of the control socket that speaks lines, right or wrong."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from stoker.ipc.framing import LIMIT
from stoker.ipc.unix_stream import UnixStream, connect_unix


class Client:
    """Speaks lines, right or wrong."""

    def __init__(self, stream: UnixStream) -> None:
        self.stream = stream
        self._buffered = BufferedByteReceiveStream(stream)

    async def ask(self, request_id: int, method: str, **params: object) -> None:
        message = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        await self.stream.send(json.dumps(message).encode() + b"\n")

    async def line(self) -> dict[str, Any]:
        with anyio.fail_after(10):
            answer: dict[str, Any] = json.loads(await self._buffered.receive_until(b"\n", LIMIT))
        return answer

    async def result(self) -> dict[str, Any]:
        result: dict[str, Any] = (await self.line())["result"]
        return result

    async def is_over(self) -> bool:
        """Whether the connection ends, after whole lines only."""
        rest = b""
        with anyio.fail_after(10):
            try:
                while True:
                    rest += await self._buffered.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return not rest or rest.endswith(b"\n")


@asynccontextmanager
async def dialled(path: Path) -> AsyncIterator[Client]:
    async with await connect_unix(path) as stream:
        yield Client(stream)
