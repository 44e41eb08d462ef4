"""One worker process group: spawned, heard out, ended, reaped.

The group is the unit: a worker may have children, or be a launcher of several ranks. Its standard error is always
drained, so that a worker can't block on it, and its last lines are kept. The end of its output is never taken for
its end, because a grandchild may hold the pipe.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

import anyio
from anyio.abc import ByteReceiveStream, Process

from .causes import describe_exit
from .oom import oom_kills

LINES_KEPT = 40
"""Last lines of output kept for `last_words`."""

LINE_LIMIT = 4096
"""Bytes of one line kept; the rest of a longer line is dropped, so that no newline is no memory leak."""

OUTPUT_GRACE = 0.5
"""Seconds after the exit in which what is still in the pipe is read."""

LineSink: TypeAlias = Callable[[str], None]


class WorkerProcess:
    """A running process group. Made by `spawn`, which must be followed by `wait`."""

    def __init__(self, process: Process, sink: LineSink) -> None:
        self._process = process
        self._sink = sink
        self._last_words: deque[str] = deque(maxlen=LINES_KEPT)
        self._ended_by_us: str | None = None
        self._oom_kills = oom_kills()
        self.exited = anyio.Event()
        """The leader is gone; `wait` may still be reading what it wrote."""

    @classmethod
    async def spawn(cls, command: Sequence[str], environ: Mapping[str, str], sink: LineSink) -> WorkerProcess:
        """Start `command` as the leader of its own session and process group.

        Args:
            command: Program and arguments; no shell.
            environ: Its whole environment.
            sink: Called with each line of its output, decoded, without the newline.

        Raises:
            OSError: If it can't be started (missing program, no memory, no descriptors).
        """
        process = await anyio.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environ,
            start_new_session=True,
        )
        return cls(process, sink)

    @property
    def pid(self) -> int:
        """The leader's process id, which is also its group's."""
        return self._process.pid

    @property
    def last_words(self) -> tuple[str, ...]:
        """The last lines it wrote."""
        return tuple(self._last_words)

    @property
    def refused(self) -> bool:
        """It exited, with the code that says a restart won't help."""
        return self._process.returncode == os.EX_CONFIG

    async def wait(self) -> str:
        """Drain the output until the leader exits, end what is left of its group, and say why it ended."""
        async with anyio.create_task_group() as drain:
            if self._process.stderr is not None:
                drain.start_soon(self._drain, self._process.stderr)
            code = await self._process.wait()
            self.exited.set()
            self._signal(signal.SIGKILL)
            drain.cancel_scope.deadline = anyio.current_time() + OUTPUT_GRACE
        await self._process.aclose()
        return describe_exit(code, self._ended_by_us, for_memory=self._killed_for_memory())

    def terminate(self) -> None:
        """Ask the group to end. CONT follows, because a stopped process hears TERM only after it."""
        self._ended_by_us = self._ended_by_us or "SIGTERM"
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the group."""
        self._ended_by_us = "SIGKILL"
        self._signal(signal.SIGKILL)

    def _killed_for_memory(self) -> bool | None:
        """Whether the system has killed anybody for want of memory in this life; None: it doesn't tell."""
        now = oom_kills()
        return None if now is None or self._oom_kills is None else now > self._oom_kills

    def _signal(self, number: signal.Signals) -> None:
        # While the leader is unreaped, or any member lives, the id is the group's. Once both are gone it could be
        # given away only after the whole pid space went round, within the instant between `wait` and this call.
        # Gone already (ProcessLookupError), or only zombies left on macOS (PermissionError): nothing to signal.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _drain(self, stream: ByteReceiveStream) -> None:
        line = bytearray()
        try:
            with suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):  # no news
                while True:
                    *complete, rest = (await stream.receive()).split(b"\n")
                    for part in complete:
                        self._keep(line + part)
                        line.clear()
                    line += rest[: max(0, LINE_LIMIT - len(line))]
        finally:
            if line:  # a last line without newline, also of a pipe that somebody else still holds
                self._keep(line)

    def _keep(self, line: bytes | bytearray) -> None:
        text = bytes(line[:LINE_LIMIT]).decode("utf-8", "replace").rstrip()
        self._last_words.append(text)
        self._sink(text)
