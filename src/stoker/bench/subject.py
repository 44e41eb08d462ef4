"""The daemon that is measured: `stoker run` in folders of its own, asked over its sockets like any daemon."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import anyio

from ..ipc.control import ControlClient, DaemonAbsent, connect
from ..ipc.control_messages import PrefixStatus, Readiness, StatusReport
from ..ipc.messages import WarmPrefix
from .children import BenchmarkError, child, clean_environment, deadline, demand_alive

T = TypeVar("T")

UP = 30.0
"""Seconds for the control socket to answer."""
READY = 300.0
"""Seconds until ready; the first start converts the model."""
REWARM = 590.0
"""Seconds for a rewarm, under the limit that is configured below."""

SAVED = 60.0
"""Seconds for a warm prefix to be on disk."""

SETTINGS = {"WARMUP_TIMEOUT_SEC": "600", "STOKER_RESTART_LIMIT": "1000", "STOKER_BACKOFF_CAP_SEC": "1"}
"""What differs from the defaults: warmups of long prompts are to end, however slow the machine is; and a worker is
killed in each trial, which is to be neither taken for a crash loop nor waited for longer and longer."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A phase, and when it was entered: seconds from the beginning of the observation."""

    at: float
    phase: str
    generation: int


@dataclass(frozen=True, slots=True)
class Course:
    """What was seen until a generation was ready; the last transition is its."""

    transitions: tuple[Transition, ...]
    ready: Readiness

    @property
    def seconds(self) -> float:
        """Until ready."""
        return self.transitions[-1].at

    def phases(self) -> dict[str, float]:
        """Seconds in each phase. `ready` is the old generation's: its death was not yet noticed."""
        spent: dict[str, float] = {}
        for now, following in pairwise(self.transitions):
            spent[now.phase] = spent.get(now.phase, 0.0) + following.at - now.at
        return spent


class Subject:
    """A running daemon.

    Args:
        pid: Its process.
        control: Its control socket.
        started: `perf_counter` when it was started.
    """

    def __init__(self, pid: int, control: Path, started: float) -> None:
        self.pid = pid
        self.control = control
        self._started = started

    def ask(self, question: Callable[[ControlClient], Awaitable[T]]) -> T:
        """Connect, ask, leave."""

        async def asking() -> T:
            async with connect(self.control) as client:
                return await question(client)

        return anyio.run(asking)

    def status(self) -> StatusReport:
        """Everything it knows."""
        return self.ask(lambda client: client.status())

    @property
    def worker_pid(self) -> int:
        """The live worker's."""
        worker = self.status().worker
        if worker is None:
            raise BenchmarkError("there is no worker")
        return worker.pid

    def wait_ready(self) -> Course:
        """The first generation's way to ready, counted from the daemon's start."""
        return self._follow(0, self._was_started)

    async def _was_started(self) -> float:
        return self._started

    def restart(self, *, cold: bool = False) -> Course:
        """Have the worker replaced, by an empty one if `cold`; its way to ready, counted from the order."""

        async def order() -> float:
            async with connect(self.control) as client:
                now = time.perf_counter()
                await client.restart(cold=cold)
                return now

        return self._follow(self.status().generation, order)

    def kill_worker(self) -> Course:
        """Send the worker SIGKILL; the way of the next one to ready, counted from the kill."""
        status, pid = self.status(), self.worker_pid

        async def strike() -> float:
            now = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            return now

        return self._follow(status.generation, strike)

    def wait_saved(self, count: int = 1) -> None:
        """Until so many prefixes that were warmed by the live worker are on disk.

        Raises:
            BenchmarkError: It is not, with the reasons that the store has.
        """
        notes: tuple[str, ...] = ()
        for passed in deadline(SAVED + 1, "saving a prefix"):
            store = self.status().store
            if store is not None and store.saved >= count:
                return
            notes = store.notes if store is not None else ("no prefixes are kept on disk",)
            if passed > SAVED or store is None:
                break
        raise BenchmarkError(f"nothing was saved: {'; '.join(notes) or 'no reason is given'}")

    def forget_learned(self) -> None:
        """Have it learn anew from the requests that follow."""
        self.ask(lambda client: client.warm_forget())

    def _follow(self, after: int, begin: Callable[[], Awaitable[float]]) -> Course:
        try:
            course = anyio.run(_followed, self.control, after, begin)
        except TimeoutError as error:
            raise BenchmarkError(f"no worker was ready within {READY:g} s") from error
        if not course.ready.ready:
            raise BenchmarkError(f"the daemon is not ready but {course.ready.phase}: {course.ready.reason}")
        return course

    def rewarm(self, system: str, tools: Sequence[dict[str, Any]] = ()) -> PrefixStatus:
        """Warm this system prompt, with these tools, in the live worker.

        Raises:
            BenchmarkError: It did not succeed.
        """
        prompts = (WarmPrefix(name="bench", system=system, tools=tuple(tools)),)
        report = self.ask(lambda client: client.rewarm(prompts, REWARM))
        if report.outcome != "succeeded" or len(report.prefixes) != 1:
            raise BenchmarkError(f"the rewarm {report.outcome}: {report.reason}")
        return report.prefixes[0]


async def _followed(control: Path, after: int, begin: Callable[[], Awaitable[float]]) -> Course:
    """Watch until a generation later than `after` is ready, or none will be.

    `begin` tells the moment from which is counted, and may bring it about: by then we are watching.
    """
    transitions: list[Transition] = []
    start: float | None = None
    with anyio.fail_after(READY):
        async with connect(control) as client, aclosing(client.watch()) as snapshots:
            async for now in snapshots:
                start = await begin() if start is None else start
                if not transitions or (now.phase, now.generation) != (
                    transitions[-1].phase,
                    transitions[-1].generation,
                ):
                    transitions.append(Transition(time.perf_counter() - start, now.phase, now.generation))
                if now.phase == "failed" or (now.ready and now.generation > after):
                    return Course(tuple(transitions), now)
    raise BenchmarkError("the daemon went away")


@contextmanager
def running(home: Path, settings: Mapping[str, str]) -> Iterator[Subject]:
    """A daemon while the block runs; its control socket answers, ready it is not yet.

    Args:
        home: Where its folders are, or will be. They stay, for the next one to find a converted model.
        settings: Environment variables.
    """
    folders = {f"STOKER_{name}_DIR": str(home / name.lower()) for name in ("RUNTIME", "STATE", "CACHE", "LOG")}
    config = home / "config.toml"
    config.touch()
    environ = clean_environment() | folders | {"STOKER_CONFIG": str(config), "STOKER_PORT": "0"} | dict(settings)
    started = time.perf_counter()
    with child([sys.executable, "-P", "-m", "stoker.daemon", "run"], environ, home / "run.log") as process:
        subject = Subject(process.pid, home / "runtime" / "control.sock", started)
        for _ in deadline(UP, "an answer of the control socket"):
            demand_alive(process, home / "run.log")
            try:
                subject.ask(lambda client: client.version())
                break
            except DaemonAbsent:
                continue
        yield subject
