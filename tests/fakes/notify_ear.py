"""systemd's end of the notify socket, for daemons that are real processes."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from tests.fakes.running_daemon import DEADLINE


class Ear:
    """Hears every datagram, in order."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening
        self.environ = {"NOTIFY_SOCKET": listening.getsockname(), "WATCHDOG_USEC": "400000"}
        """What systemd sets for the daemon."""

    async def until(self, last: bytes) -> list[bytes]:
        """What came, up to the datagram with `last` in it."""
        heard: list[bytes] = []
        with anyio.fail_after(DEADLINE):
            while not heard or last not in heard[-1]:
                await anyio.wait_readable(self._socket)
                heard.append(self._socket.recv(4096))
        return heard


@contextmanager
def ear() -> Iterator[Ear]:
    """One that is gone at the end of the block, with its socket."""
    home = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening:
        try:
            listening.bind(str(home / "notify"))
            yield Ear(listening)
        finally:
            shutil.rmtree(home)
