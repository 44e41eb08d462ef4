"""Server-sent events to one client.

The headers go out with the first event. A good stream ends with its last chunk; a failed one ends with an error
event and a connection that closes in the middle of the chunked body, so that no client takes it for complete.

Spec: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiohttp import ClientConnectionResetError, web

from .errors import ApiError

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would hold events back
}

COMMENT_INTERVAL = 3.0
"""Seconds between two comments: often enough for proxies' idle limits (usually 30 or 60), too rare to matter."""

SEND_TIMEOUT = 60.0
"""Seconds that a client may take nothing while its buffers are full, before it is given up."""


class Pace:
    """Says when something may happen again.

    Args:
        interval: Seconds between two times.
        clock: A monotonic clock.
    """

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._last = clock()

    def due(self) -> bool:
        """Whether the interval has passed since the last time this was true, or since the beginning."""
        now = self._clock()
        if now - self._last < self._interval:
            return False
        self._last = now
        return True


class EventStream:
    """One client's stream; use `open_stream` to make one."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._pace = Pace(COMMENT_INTERVAL)
        self.response = web.StreamResponse(headers=HEADERS)

    async def prepare(self) -> None:
        """Make the headers ready; they leave with the first event."""
        await self.response.prepare(self._request)

    async def send(self, events: bytes) -> None:
        """Write complete events; waits while the client reads more slowly than we write.

        Raises:
            ConnectionError: If the client left, or was given up because it doesn't read.
        """
        if not self._is_behind():
            await self.response.write(events)
            return
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await self.response.write(events)
        except TimeoutError:
            self._abort()
            raise ClientConnectionResetError("the client does not read") from None

    async def comment(self, text: str) -> None:
        """Show that the stream lives, unless that was shown a moment ago. `text` is one line."""
        if self._pace.due():
            await self.send(f": {text}\n\n".encode())

    async def break_off(self, error: ApiError) -> None:
        """Tell the error, and end the connection without ending the body."""
        await self.send(b"data: " + error.document() + b"\n\n")
        if self._request.transport is not None:
            # Flushes what was written, unlike abort(): the client is to see the error.
            self._request.transport.close()

    def _is_behind(self) -> bool:
        transport = self._request.transport
        return transport is not None and transport.get_write_buffer_size() > 0

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


STREAM = web.RequestKey("stream", EventStream)
"""The request's stream once it is open: from then on an error can't have a status of its own."""


async def open_stream(request: web.Request) -> EventStream:
    """Begin to answer a request with events."""
    stream = EventStream(request)
    await stream.prepare()
    request[STREAM] = stream
    return stream
