"""Frames over a byte stream: the only I/O of this room."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import ByteStream

from .framing import Dialect, Frame, FrameDecoder, Malformed, ProtocolError, encode

RECEIVE_SIZE = 65536
"""Bytes asked for in one read: a Linux Unix socket's usual buffer is a few times this."""

SEND_TIMEOUT = 10.0
"""Seconds that the other end may leave us waiting with a message before it counts as gone."""


class ChannelClosed(Exception):
    """The connection is gone."""


class Channel:
    """Sends and receives frames. Any number of tasks may send; one may receive.

    Args:
        stream: A connected byte stream.
        dialect: What this end understands.
    """

    def __init__(self, stream: ByteStream, dialect: Dialect) -> None:
        self._stream = stream
        self._decoder = FrameDecoder(dialect)
        self._received: deque[Frame | Malformed] = deque()
        self._broken: ProtocolError | None = None
        self._sending = anyio.Lock()

    async def send(self, frame: Frame) -> None:
        """Send one frame whole; waits while the other end doesn't read, at most `SEND_TIMEOUT` seconds.

        A cancelled caller still sends its frame to the end: half a line can't be taken back, and the connection
        is others' too.

        Raises:
            ChannelClosed: If the connection is gone, or the other end didn't read.
            FrameTooLong: If the frame is over the limit; nothing was sent.
        """
        line = encode(frame)
        async with self._sending:
            with anyio.CancelScope(shield=True), anyio.move_on_after(SEND_TIMEOUT):
                try:
                    await self._stream.send(line)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                    raise ChannelClosed from error
                return
            await anyio.aclose_forcefully(self._stream)
            raise ChannelClosed

    async def receive(self) -> Frame | Malformed:
        """The next frame.

        Raises:
            ChannelClosed: If the other end closed between two frames, or the connection broke.
            ProtocolError: If the stream can't be read any further.
        """
        while not self._received:
            if self._broken is not None:
                raise self._broken
            try:
                data = await self._stream.receive(RECEIVE_SIZE)
            except anyio.EndOfStream:
                self._decoder.end()
                raise ChannelClosed from None
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                raise ChannelClosed from error
            try:
                self._received.extend(self._decoder.feed(data))
            except ProtocolError as error:
                self._broken = error  # told after the good frames before it have been received
        return self._received.popleft()

    async def aclose(self) -> None:
        """Close the connection; a receiver at the other end gets what was sent, then the end."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
