"""The daemon's end of a worker socket, for tests of what sits at the other end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from stoker.ipc.framing import (
    ErrorResponse,
    Frame,
    FrameDecoder,
    Malformed,
    Notification,
    Request,
    Response,
    encode,
)
from stoker.ipc.messages import (
    Generate,
    Hello,
    Load,
    Progress,
    Step,
    TextPrompt,
    Warm,
    WarmPrefix,
    Welcome,
)
from tests.fakes.dialects import DAEMON
from tests.fakes.fake_scenario import COMMAND

DEADLINE = 20.0
"""Seconds after which a silent fake worker fails the test."""


class FakeDaemon:
    """The other end: one connection, blocking, with a deadline on every wait."""

    def __init__(self, scenario: object = "", generation: int = 1) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="stk", dir="/tmp")  # a path that is short on macOS too
        path = f"{self.folder.name}/worker.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        listener.settimeout(DEADLINE)
        text = scenario if isinstance(scenario, str) else json.dumps(scenario)
        environ = {**os.environ, "FAKE_WORKER": text}
        self.process = subprocess.Popen(
            [*COMMAND, "--socket", path], env=environ, stderr=subprocess.PIPE, start_new_session=True
        )
        self.generation = generation
        self.socket = listener.accept()[0]
        listener.close()
        self.socket.settimeout(DEADLINE)
        self.decoder = FrameDecoder(DAEMON)
        self.frames = self._frames()

    def _frames(self) -> Iterator[Frame | Malformed]:
        while data := self.socket.recv(65536):
            yield from self.decoder.feed(data)
        self.decoder.end()

    def send(self, frame: Frame) -> None:
        self.socket.sendall(encode(frame))

    def welcome(self) -> Hello:
        hello = next(self.frames)
        assert isinstance(hello, Request)
        assert isinstance(hello.body, Hello)
        self.send(Response(hello.id, Welcome(protocol=1, generation=self.generation)))
        return hello.body

    def ask(self, body: Any, request_id: int = 1) -> list[Frame | Malformed]:
        """All frames up to the answer."""
        self.send(Request(request_id, body))
        return self.until(Response, ErrorResponse)

    def until(self, *kinds: type) -> list[Frame | Malformed]:
        frames = []
        for frame in self.frames:
            frames.append(frame)
            if isinstance(frame, kinds):
                return frames
        raise AssertionError(f"the connection ended after {frames}")

    def gone(self) -> int:
        """The exit status of the process, once it ended by itself."""
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        self.socket.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(DEADLINE)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.folder.cleanup()


Start: TypeAlias = Callable[..., FakeDaemon]


def result_of(frames: list[Frame | Malformed]) -> Any:
    assert isinstance(frames[-1], Response)
    return frames[-1].result


def tokens_of(frames: list[Frame | Malformed]) -> tuple[int, ...]:
    bodies = [frame.body for frame in frames if isinstance(frame, Notification)]
    return tuple(
        token for body in bodies if isinstance(body, Step) for delta in body.deltas for token in delta.tokens
    )


def progress_of(frames: list[Frame | Malformed]) -> list[tuple[str, int, int]]:
    bodies = [frame.body for frame in frames if isinstance(frame, Notification)]
    return [(body.stage, body.done, body.total) for body in bodies if isinstance(body, Progress)]


LOAD = Load(model="/models/tiny", cache_dir="/nowhere")
WARM = Warm(prefixes=(WarmPrefix(name="chat", system="you are a kind and patient machine"),))
GENERATE = Generate(prompt=TextPrompt(text="once upon a time"), max_tokens=6)


def fault(at: str, do: str, **more: object) -> dict[str, object]:
    return {"faults": [{"at": at, "do": do, **more}]}
