"""What strikes the workers of a storm: signals and restarts, at moments drawn from a seed."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import psutil

from stoker.bench.children import BenchmarkError
from stoker.ipc.control import connect
from stoker.ipc.control_messages import Readiness

SIGNALS: Mapping[str, signal.Signals] = {
    "kill": signal.SIGKILL,
    "term": signal.SIGTERM,
    "stop": signal.SIGSTOP,
    "abort": signal.SIGABRT,
}
"""By their names on the command line; `restart` is a fault too."""

MERCY = 0.05
"""Seconds of a ready worker's life before it is struck, at most."""
RECOVERY = 120.0
"""Seconds for a next generation to be ready."""


@dataclass
class Striker:
    """Strikes the daemon's workers.

    Args:
        daemon: Its process.
        control: Its control socket.
        chance: Where kinds and moments come from.
        kinds: Names and weights of the faults.
        early: Share of the strikes that don't wait for a worker to be ready.
    """

    daemon: int
    control: Path
    chance: random.Random
    kinds: Mapping[str, int]
    early: float = 0.1
    struck: Counter[str] = field(default_factory=Counter)
    now: Readiness | None = None
    _news: anyio.Event = field(default_factory=anyio.Event)
    _after: int = 0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Know the daemon's phase inside the block."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch)
            yield
            tasks.cancel_scope.cancel()

    async def _watch(self) -> None:
        async with connect(self.control) as client, aclosing(client.watch()) as snapshots:
            async for self.now in snapshots:
                self._news.set()
                self._news = anyio.Event()

    async def ready(self) -> Readiness:
        """A worker of a generation that was not struck yet is ready.

        Raises:
            BenchmarkError: None is within `RECOVERY`, or none will be.
        """
        with anyio.move_on_after(RECOVERY):
            while not (self.now and self.now.ready and self.now.generation > self._after):
                if self.now and self.now.phase == "failed":
                    raise BenchmarkError(f"the daemon gave up: {self.now.reason}")
                await self._news.wait()
            return self.now
        raise BenchmarkError(f"no worker was ready within {RECOVERY:g} s: {self.now}")

    async def strike(self) -> None:
        """One fault."""
        kind = self.chance.choices(tuple(self.kinds), tuple(self.kinds.values()))[0]
        if kind == "restart" or self.chance.random() >= self.early:
            self._after = max(self._after, (await self.ready()).generation)
            await anyio.sleep(self.chance.uniform(0, MERCY))
        if kind == "restart":
            async with connect(self.control) as client:
                await client.restart()
        else:
            await self._signal(SIGNALS[kind])
        self.struck[kind] += 1

    async def _signal(self, number: signal.Signals) -> None:
        """Signal the worker; waits for one, since between two there is none."""
        with anyio.fail_after(RECOVERY):
            while not (pids := worker_pids(self.daemon)):  # noqa: ASYNC110 - another process's child
                await anyio.sleep(0.002)
        for pid in pids[-1:]:
            os.kill(pid, number)


def worker_pids(daemon: int) -> list[int]:
    """The daemon's living children, the newest last."""
    children = psutil.Process(daemon).children()
    living = [child for child in children if _lives(child)]
    return [child.pid for child in sorted(living, key=lambda child: child.pid)]


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
