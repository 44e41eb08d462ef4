"""Unix stream sockets that can be cancelled at any instant.

anyio 4.16's own ones (asyncio backend) register a future's `set_result` as the loop's callback; where a socket
becomes readable in the same turn in which the wait for it is cancelled, which is what happens when both ends of a
connection stop, the loop reports an `InvalidStateError`. `anyio.wait_readable` has no such gap.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint

CONNECT_RETRY = 0.01
"""Seconds between two tries while the listener's backlog is full, which Linux tells by EAGAIN."""


class UnixStream(ByteStream):
    """A connected Unix stream socket; owns it. One task may receive while another sends."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(0)
        self._socket = connected
        self._closed = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """What has arrived, at least one byte.

        Raises:
            anyio.EndOfStream: If the other end sends no more.
            anyio.BrokenResourceError: If the connection broke.
            anyio.ClosedResourceError: If it was closed here.
        """
        await checkpoint()
        while True:
            try:
                data = self._socket.recv(max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
            except OSError as error:
                raise self._gone() from error
            else:
                if not data:
                    raise anyio.EndOfStream
                return data

    async def send(self, item: bytes) -> None:
        """Send all of it; raises like `receive`. Cancelled, it may have sent a part."""
        await checkpoint()
        rest = memoryview(item)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            except OSError as error:
                raise self._gone() from error

    def _gone(self) -> Exception:
        return anyio.ClosedResourceError() if self._closed else anyio.BrokenResourceError()

    async def send_eof(self) -> None:
        """Send no more; the other end's answers can still be received."""
        await checkpoint()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._gone() from error

    async def aclose(self) -> None:
        """Close it; who waits on it here gets a `ClosedResourceError`."""
        if not self._closed:
            self._closed = True
            anyio.notify_closing(self._socket)
            self._socket.close()
        await checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The socket itself."""
        return {SocketAttribute.raw_socket: lambda: self._socket}


async def connect_unix(path: str | os.PathLike[str]) -> UnixStream:
    """Connect to a listening socket. While its backlog is full this waits, so give it a deadline.

    Raises:
        OSError: If nobody listens there, or it may not be used, or the path is too long.
    """
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.settimeout(0)
        while True:
            try:
                stream.connect(str(Path(path)))
            except BlockingIOError:
                await anyio.sleep(CONNECT_RETRY)
            else:
                return UnixStream(stream)
    except BaseException:
        stream.close()
        raise


async def accept_unix(listener: socket.socket) -> UnixStream:
    """The next connection of a non-blocking listener.

    Raises:
        OSError: If there is none to be had, such as for want of descriptors (EMFILE).
    """
    await checkpoint()
    while True:
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            await anyio.wait_readable(listener)
        else:
            return UnixStream(accepted)
