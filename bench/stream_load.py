"""Many streamed chats at once, from a process of its own: what is counted must not cost the daemon's core.

python bench/stream_load.py PORT STREAMS TOKENS     prints `open` once every stream has begun, then a line of JSON
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field

DEADLINE = 300.0
"""Seconds for all of it."""


@dataclass
class Count:
    """What all streams together have seen."""

    streams: int
    events: int = 0
    opened: int = 0
    ended: int = 0
    at_open: tuple[float, int] = (0.0, 0)
    firsts: list[float] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self, seconds: float) -> None:
        """One more stream has begun."""
        self.firsts.append(seconds)
        self.opened += 1
        if self.opened == self.streams:
            self.at_open = (time.perf_counter(), self.events)
            print("open", flush=True)

    def end(self) -> None:
        """One more stream has ended."""
        self.ended += 1
        if self.ended == self.streams:
            self.changed.set()


class Stream(asyncio.Protocol):
    """One chat; counts the ends of events, and looks at nothing else."""

    def __init__(self, request: bytes, count: Count) -> None:
        self._request = request
        self._count = count
        self._began = 0.0
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._began = time.perf_counter()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count."""
        if self._began and b"\n\n" in data:
            self._count.open(time.perf_counter() - self._began)
            self._began = 0.0
        self._count.events += data.count(b"\n\n")
        self._tail = (self._tail + data)[-32:]
        if b"[DONE]" in self._tail:
            self._count.end()

    def connection_lost(self, _error: Exception | None) -> None:
        """Nothing: an end before `[DONE]` ends in the deadline."""


def request(tokens: int) -> bytes:
    """A streamed chat over a new connection."""
    body = json.dumps(
        {
            "model": "default",
            "stream": True,
            "max_tokens": tokens,
            "messages": [{"role": "user", "content": "Tell a story."}],
        }
    )
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


async def load(port: int, streams: int, tokens: int) -> dict[str, object]:
    """Run the streams to their ends."""
    count, data = Count(streams), request(tokens)
    loop = asyncio.get_running_loop()
    transports = [
        (await loop.create_connection(lambda: Stream(data, count), "127.0.0.1", port))[0] for _ in range(streams)
    ]
    async with asyncio.timeout(DEADLINE):
        await count.changed.wait()
    began, events = count.at_open
    seconds = time.perf_counter() - began
    for transport in transports:
        transport.close()
    return {"seconds": seconds, "deltas": count.events - events, "first": sorted(count.firsts)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(load(*map(int, sys.argv[1:4])))), flush=True)
