"""Two ends of a byte stream in memory: works in virtual time, and holds no more than a small buffer."""

from __future__ import annotations

import anyio
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

PIECE = 16
"""Bytes that travel at once, so that every frame comes in several pieces."""
MOST_PIECES = 1000
"""Pieces of one frame; those of a longer one are longer."""


class MemoryStream(ByteStream):
    """One end."""

    def __init__(self, to: MemoryObjectSendStream[bytes], source: MemoryObjectReceiveStream[bytes]) -> None:
        self._to = to
        self._source = source
        self._buffered = BufferedByteReceiveStream(source)

    async def send(self, item: bytes) -> None:
        """Send, in pieces; waits while the other end doesn't read."""
        size = max(PIECE, len(item) // MOST_PIECES)
        for start in range(0, len(item), size):
            await self._to.send(item[start : start + size])

    async def send_eof(self) -> None:
        """Send no more."""
        await self._to.aclose()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Bytes that have come."""
        return await self._buffered.receive(max_bytes)

    async def aclose(self) -> None:
        """Close both directions."""
        await self._to.aclose()
        await self._source.aclose()


def memory_pair(pieces: int = 4) -> tuple[MemoryStream, MemoryStream]:
    """Two connected ends; so many pieces may be under way."""
    there, here = anyio.create_memory_object_stream[bytes](pieces), anyio.create_memory_object_stream[bytes](pieces)
    return MemoryStream(there[0], here[1]), MemoryStream(here[0], there[1])
