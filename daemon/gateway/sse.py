"""Server-sent events to one client.

The headers go out with the first event. A good stream ends with its last chunk; a failed one ends with an error
event and a connection that closes in the middle of the chunked body, so that no client takes it for complete.

Spec: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

from aiohttp import ClientConnectionResetError, web

from .errors import ApiError

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would hold events back
}

ALIVE_INTERVAL = 3.0
"""Seconds of silence after which a stream shows that it lives: often enough for proxies' idle limits (usually 30 or
60), too rare to matter."""

SEND_TIMEOUT = 60.0
"""Seconds that a client may take nothing while its buffers are full, before it is given up."""


class EventStream:
    """One client's stream; use `open_stream` to make one."""

    def __init__(
        self, request: web.Request, alive: Callable[[str], bytes], failure: Callable[[ApiError], bytes]
    ) -> None:
        self._request = request
        self._alive = alive
        self._failure = failure
        self._sent = False
        self.response = web.StreamResponse(headers=HEADERS)

    async def prepare(self) -> None:
        """Make the headers ready; they leave with the first event."""
        await self.response.prepare(self._request)

    async def send(self, events: bytes) -> None:
        """Write complete events; waits while the client reads more slowly than we write.

        Raises:
            ConnectionError: If the client left, or was given up because it doesn't read.
        """
        self._sent = True
        if not self._is_behind():
            await self.response.write(events)
            return
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await self.response.write(events)
        except TimeoutError:
            self._abort()
            raise ClientConnectionResetError("the client does not read") from None

    @asynccontextmanager
    async def kept_alive(self, note: Callable[[], str]) -> AsyncIterator[None]:
        """Inside the block, silence is broken with what `alive` makes of the note."""
        pulse = asyncio.ensure_future(self._pulse(note))
        try:
            yield
        finally:
            pulse.cancel()
            await asyncio.wait({pulse})

    async def _pulse(self, note: Callable[[], str]) -> None:
        with suppress(ConnectionError):  # whoever writes the answer hears of it too
            while True:
                self._sent = False
                await asyncio.sleep(ALIVE_INTERVAL)
                if not self._sent:
                    await self.send(self._alive(note()))

    async def break_off(self, error: ApiError) -> None:
        """Tell the error, and end the connection without ending the body."""
        await self.send(self._failure(error))
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


async def open_stream(
    request: web.Request,
    alive: Callable[[str], bytes],
    failure: Callable[[ApiError], bytes],
    headers: Mapping[str, str],
) -> EventStream:
    """Begin to answer a request with events.

    Args:
        request: The client's.
        alive: Makes what breaks a silence, from a line for people.
        failure: Makes the last event of a stream that fails.
        headers: Further ones of the response.
    """
    stream = EventStream(request, alive, failure)
    stream.response.headers.update(headers)
    await stream.prepare()
    request[STREAM] = stream
    return stream


def comment(text: str) -> bytes:
    """An SSE comment, which clients skip. `text` is one line."""
    return f": {text}\n\n".encode()
