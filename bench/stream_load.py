"""Many streamed chats at once, from a process of its own: the client's work must not be taken for the daemon's.

python bench/stream_load.py PORT STREAMS TOKENS SECONDS

Prints `open` once every stream has begun, then a line of JSON. It ends in an error after SECONDS.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field


@dataclass
class Count:
    """What all streams together have seen."""

    streams: int
    events: int = 0
    tokens: int = 0
    ended: int = 0
    firsts: list[float] = field(default_factory=list)
    at_open: tuple[float, int, int] = (0.0, 0, 0)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self, seconds: float) -> None:
        """One more stream has begun."""
        self.firsts.append(seconds)
        if len(self.firsts) == self.streams:
            self.at_open = (time.perf_counter(), self.events, self.tokens)
            print("open", flush=True)

    def end(self) -> None:
        """One more stream has ended."""
        self.ended += 1
        if self.ended == self.streams:
            self.done.set()


class Stream(asyncio.Protocol):
    """One chat. It counts, and looks at nothing else.

    Args:
        request: Sent as it is.
        count: Everybody's.
    """

    def __init__(self, request: bytes, count: Count) -> None:
        self._request = request
        self._count = count
        self._began: float | None = None
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._began = time.perf_counter()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count the events, and the tokens in them: the fake worker's are `w` and a number."""
        events = data.count(b"\n\n")
        self._count.events += events
        self._count.tokens += data.count(b"w")  # no name in a chunk has this letter
        if events and self._began is not None:
            self._count.open(time.perf_counter() - self._began)
            self._began = None
        self._tail = (self._tail + data)[-32:]
        if b"[DONE]" in self._tail:
            self._tail = b""
            self._count.end()


def request(tokens: int) -> bytes:
    """A streamed chat."""
    messages = [{"role": "user", "content": "Tell a story."}]
    body = json.dumps({"model": "default", "stream": True, "max_tokens": tokens, "messages": messages})
    return (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


async def load(port: int, streams: int, tokens: int, seconds: float) -> dict[str, object]:
    """Run the streams to their ends."""
    count, data = Count(streams), request(tokens)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(seconds):
        for _ in range(streams):
            await loop.create_connection(lambda: Stream(data, count), "127.0.0.1", port)
        await count.done.wait()
    began, events, text = count.at_open
    return {
        "seconds": time.perf_counter() - began,
        "events": count.events - events,
        "tokens": count.tokens - text,
        "first": sorted(count.firsts),
    }


if __name__ == "__main__":
    port, streams, tokens, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(load(int(port), int(streams), int(tokens), float(seconds)))), flush=True)
