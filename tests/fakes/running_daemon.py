"""A real daemon process in folders of its own, for tests from end to end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import anyio
import psutil

from stoker.ipc.control import ControlClient, DaemonAbsent, connect
from stoker.ipc.control_messages import Readiness, StatusReport

DEADLINE = 60.0
"""Seconds for any wait of a test: far over what is measured, so that a slow machine is no failure."""


def is_alive(pid: int) -> bool:
    """Whether a process runs. One that is dead but whose adopted parent has not reaped it does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class RunningDaemon:
    """`stoker run`, started by `async with`, and gone with all its processes and files at the end.

    Args:
        model: What to serve.
        environ: Added to the environment.
        arguments: Added to the command line.
    """

    def __init__(
        self, model: Path | str, environ: dict[str, str] | None = None, arguments: tuple[str, ...] = ()
    ) -> None:
        # pytest's own folders are too deep for a socket's path.
        self.home = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
        folders = {
            f"STOKER_{name}_DIR": str(self.home / name.lower()) for name in ("RUNTIME", "STATE", "CACHE", "LOG")
        }
        self.environ = {**os.environ, **folders, **(environ or {})}
        self.command = [
            sys.executable,
            "-m",
            "stoker.daemon",
            "run",
            "--model",
            str(model),
            "--port",
            "0",
            *arguments,
        ]
        self.process: subprocess.Popen[bytes]
        self.workers: set[int] = set()

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.home / "runtime" / "control.sock"

    async def __aenter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Start the process; `ready` waits for it."""
        self.process = subprocess.Popen(
            self.command, env=self.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    @asynccontextmanager
    async def control(self) -> AsyncIterator[ControlClient]:
        """A client of its control socket, as soon as it listens."""
        with anyio.fail_after(DEADLINE):
            while True:
                assert self.process.poll() is None, self.output()
                with contextlib.suppress(DaemonAbsent):
                    async with connect(self.socket) as client:
                        yield client
                        return
                await anyio.sleep(0.01)  # another process's start can only be polled

    async def ready(self, generation: int = 1) -> Readiness:
        """The snapshot when a generation from `generation` on is ready."""
        with anyio.fail_after(DEADLINE):
            async with self.control() as client, contextlib.aclosing(client.watch()) as snapshots:
                async for readiness in snapshots:
                    assert readiness.phase != "failed", readiness.reason
                    if readiness.ready and readiness.generation >= generation:
                        break
        status = await self.status()
        if status.worker is not None:
            self.workers.add(status.worker.pid)
        return readiness

    async def status(self) -> StatusReport:
        """What the daemon says of itself."""
        async with self.control() as client:
            return await client.status()

    async def worker_pid(self) -> int:
        """The living worker's process."""
        status = await self.status()
        assert status.worker is not None
        return status.worker.pid

    def output(self) -> str:
        """What it printed; call it after its end."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    async def __aexit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.send_signal(signal.SIGTERM)  # twice: a test's end waits for no drain
        try:
            await anyio.to_thread.run_sync(lambda: self.process.wait(DEADLINE))
        finally:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            leftovers = [pid for pid in self.workers if is_alive(pid)]
            sockets = list(self.home.rglob("*.sock"))
            shutil.rmtree(self.home)
        assert not leftovers, f"workers left behind: {leftovers}"
        assert not sockets, f"sockets left behind: {sockets}"


@asynccontextmanager
async def out_of_time(model: Path, environ: dict[str, str]) -> AsyncIterator[tuple[RunningDaemon, Readiness]]:
    """A daemon whose warmup runs out of time, and what it says when it is ready.

    A daemon that got no processor for a second gives its worker ten seconds more (`attention`). On a machine that is
    so busy another one may have better luck.
    """
    for tries_left in (2, 1, 0):
        async with RunningDaemon(model, environ) as daemon:
            readiness = await daemon.ready()
            if readiness.reason == "timeout" or not tries_left:
                yield daemon, readiness
                return
