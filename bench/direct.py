"""A worker without a daemon: asked directly over its socket, it shows what the daemon adds."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from stoker.bench.children import BenchmarkError, child
from stoker.bench.stopwatch import Answer
from stoker.daemon.link import FROM_WORKER
from stoker.ipc.framing import Frame, FrameDecoder, Malformed, Notification, Request, Response, encode
from stoker.ipc.messages import PROTOCOL_VERSION, Finished, Generate, Hello, Step, Welcome

DEADLINE = 10.0
"""Seconds for the worker to connect, and for it to say anything."""


class DirectWorker:
    """The daemon's end of a worker's connection, as bare as it can be.

    Args:
        connection: Just accepted.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames = self._received()
        self._ids = count(1)
        hello = next(self._frames)
        if not isinstance(hello, Request) or not isinstance(hello.body, Hello):
            raise BenchmarkError(f"expected a hello, got {hello}")
        self._send(Response(hello.id, Welcome(protocol=PROTOCOL_VERSION, generation=1)))

    def ask(self, body: Generate) -> Answer:
        """Time one generation like `StreamClient.ask`."""
        text: list[str] = []
        first: float | None = None
        start = time.perf_counter()
        request_id = next(self._ids)
        self._send(Request(request_id, body))
        for frame in self._frames:
            match frame:
                case Notification(body=Step(deltas=deltas)):
                    first = time.perf_counter() - start if first is None else first
                    text += [delta.text for delta in deltas]
                case Response(id=answered, result=Finished()) if answered == request_id and first is not None:
                    return Answer(first, time.perf_counter() - start, "".join(text))
                case Notification():
                    pass  # progress
                case _:
                    break
        raise BenchmarkError("the worker did not answer")

    def _send(self, frame: Frame) -> None:
        self._connection.sendall(encode(frame))

    def _received(self) -> Iterator[Frame | Malformed]:
        decoder = FrameDecoder(FROM_WORKER)
        while data := self._connection.recv(65536):
            yield from decoder.feed(data)


@contextmanager
def running(command: Sequence[str], environ: Mapping[str, str], home: Path) -> Iterator[DirectWorker]:
    """A worker of our own while the block runs."""
    path = home / "direct.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(DEADLINE)
        with child([*command, "--socket", str(path)], environ, home / "direct.log"):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(DEADLINE)
                yield DirectWorker(connection)
