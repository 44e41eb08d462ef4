"""A daemon's inside for the control socket: does nothing, remembers what was asked, and publishes what it is told.

`python -m tests.fakes.fake_steward SOCKET` is a whole process that serves until it is told to stop.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import msgspec
from anyio.from_thread import BlockingPortal, start_blocking_portal

from stoker.daemon.control import ControlServer
from stoker.daemon.readiness import Board
from stoker.daemon.runtime_dir import listen
from stoker.ipc.control_messages import (
    Clearance,
    Counted,
    Departure,
    Measurement,
    PrefixListing,
    PrefixStatus,
    Rates,
    Readiness,
    RequestCounts,
    RewarmReport,
    StatusReport,
    StoredListing,
    Verification,
    WarmupStatus,
    WorkerStatus,
)
from stoker.ipc.messages import CacheFigures, KnownPrefix, ProvenPrefix, SetAside, StoredPrefix, WarmPrefix

PREFIX = PrefixStatus(name="system", tokens=1832, tokens_warm=1832, source="prefilled", seconds=1.9)
READY = Readiness(
    ready=True,
    phase="ready",
    warm=True,
    reason=None,
    generation=1,
    since=1_700_000_000.0,
    warmup=WarmupStatus(outcome="succeeded", seconds=1.9, prefixes=(PREFIX,)),
)
LOADING = Readiness(
    ready=False,
    phase="loading",
    warm=False,
    reason=None,
    generation=1,
    since=1_700_000_000.0,
    warmup=WarmupStatus(outcome=None, seconds=0.0),
)
FAILED = msgspec.structs.replace(LOADING, phase="failed", reason="the model is unusable", expected=False)
LEARNED = KnownPrefix(
    name="learned-1a2b3c4d",
    origin="learned",
    tokens=2048,
    tokens_warm=2048,
    pinned=True,
    seen=12,
    tokens_saved=22_528,
    last_used=1_700_000_000.0,
)
LISTING = PrefixListing(
    prefixes=(KnownPrefix(name="system", origin="configured", tokens=1832, tokens_warm=1832), LEARNED)
)
STORED = StoredListing(
    folder="/cache/prefixes",
    prefixes=(
        StoredPrefix(
            key="1a" * 20,
            name="system",
            model="tiny",
            tokens=1832,
            bytes=84_410_368,
            created=1.7e9,
            used=1.7e9,
            uses=2,
        ),
        StoredPrefix(
            key="2b" * 20,
            name="agent",
            model="other",
            tokens=90,
            bytes=4_000_000,
            created=1.7e9,
            used=1.7e9,
            foreign="another model",
        ),
    ),
    bytes=88_500_000,
    budget_bytes=8 << 30,
    set_aside=(SetAside(key="3c" * 20, name="old", kind="damaged", reason="the checksum doesn't fit", at=1.7e9),),
)
MEASURED = Measurement(device="cpu", bandwidth=8e9, flops=60e9, seconds=0.5)
REWARMED = RewarmReport(outcome="succeeded", seconds=0.5, reason=None, prefixes=(PREFIX,))


def changed(readiness: Readiness, **fields: Any) -> Readiness:
    """The same snapshot with other fields."""
    return msgspec.structs.replace(readiness, **fields)


@dataclass
class FakeSteward:
    """Answers everything; `asked` lists what came, `fault` is raised instead of an answer."""

    board: Board = field(default_factory=lambda: Board(READY))
    asked: list[object] = field(default_factory=list)
    fault: Exception | None = None
    after_restart: tuple[Readiness, ...] = (changed(LOADING, generation=2), changed(READY, generation=2))
    rewarm_report: RewarmReport = REWARMED
    listing: PrefixListing = LISTING
    stored: StoredListing = STORED
    measured: Measurement = MEASURED
    faults: dict[str, str] = field(default_factory=dict)
    count: int = 1
    http: str = "http://127.0.0.1:11500"
    logs: dict[str, str] = field(default_factory=dict)
    last_words: tuple[str, ...] = ()
    on_stop: Callable[[], None] = lambda: None

    def _hear(self, what: object) -> None:
        self.asked.append(what)
        if self.fault:
            raise self.fault

    async def status(self) -> StatusReport:
        self._hear("status")
        readiness = self.board.current
        return StatusReport(
            **{name: getattr(readiness, name) for name in readiness.__struct_fields__},
            model="SmolLM2-135M-Instruct",
            model_path="embedded",
            http=self.http,
            pid=4711,
            uptime=7300.0,
            version="0.1.0",
            worker=WorkerStatus(pid=4712, uptime=65.0, memory_bytes=412_000_000),
            restarts=(Departure(at=1_700_000_000.0, generation=0, cause="killed by SIGKILL"),),
            prefixes=(PREFIX,),
            cache=CacheFigures(
                entries=3, pinned=1, bytes=210_000_000, limit_bytes=2 << 30, hits=10, misses=2, evictions=0
            ),
            requests=RequestCounts(running=1, served=12),
            rates=Rates(prompt_tps=812.0, generation_tps=43.2),
            last_words=self.last_words,
            logs=self.logs,
        )

    async def restart(self, *, cold: bool) -> None:
        self._hear(("restart", cold))
        for readiness in self.after_restart:
            self.board.publish(readiness)

    async def rewarm(self, prompts: tuple[WarmPrefix, ...]) -> RewarmReport:
        self._hear(prompts)
        return self.rewarm_report

    async def warm_list(self) -> PrefixListing:
        self._hear("warm_list")
        return self.listing

    async def warm_pin(self, name: str, *, pinned: bool) -> Counted:
        self._hear(("pin", name, pinned))
        return Counted(count=self.count)

    async def warm_forget(self, name: str | None) -> Counted:
        self._hear(("forget", name))
        return Counted(count=self.count)

    async def cache_list(self) -> StoredListing:
        self._hear("cache_list")
        return self.stored

    async def cache_verify(self, key: str | None) -> Verification:
        self._hear(("verify", key))
        meant = [one for one in self.stored.prefixes if key in {None, one.key}]
        proven = (ProvenPrefix(key=o.key, name=o.name, bytes=o.bytes, fault=self.faults.get(o.key)) for o in meant)
        return Verification(prefixes=tuple(proven))

    async def cache_clear(self, name: str | None, *, foreign: bool) -> Clearance:
        self._hear(("clear", name, foreign))
        return Clearance(count=self.count, bytes=84_410_368)

    async def measure(self) -> Measurement:
        self._hear("measure")
        return self.measured

    async def stop(self) -> None:
        self._hear("stop")
        self.on_stop()


@contextmanager
def short_directory() -> Iterator[Path]:
    """A private directory whose path leaves room for a socket's name, which is at most 103 bytes on macOS."""
    path = Path(tempfile.mkdtemp(prefix="stk", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@asynccontextmanager
async def served(steward: FakeSteward, server: ControlServer | None = None) -> AsyncIterator[Path]:
    """The path of a control socket that is served while the block runs."""
    with short_directory() as folder:
        path = folder / "control.sock"
        listener = listen(path)
        async with anyio.create_task_group() as group:
            group.start_soon((server or ControlServer(steward)).serve, listener)
            yield path
            group.cancel_scope.cancel()


class BackgroundDaemon:
    """A served steward in a thread of its own, for commands that block."""

    def __init__(self, steward: FakeSteward, socket: Path, portal: BlockingPortal, end: Callable[[], None]) -> None:
        self.steward = steward
        self.socket = socket
        self.end = end
        self._portal = portal

    def publish(self, readiness: Readiness) -> None:
        self._portal.call(self.steward.board.publish, readiness)


@contextmanager
def background(steward: FakeSteward) -> Iterator[BackgroundDaemon]:
    """Serve in another thread while the block runs, or until its `end`."""
    with start_blocking_portal() as portal, ExitStack() as stack:
        socket = stack.enter_context(portal.wrap_async_context_manager(served(steward)))
        yield BackgroundDaemon(steward, socket, portal, stack.close)


async def _live(socket: Path) -> None:
    async with anyio.create_task_group() as group:
        steward = FakeSteward(on_stop=group.cancel_scope.cancel)
        group.start_soon(ControlServer(steward).serve, listen(socket))
        print("listening", flush=True)  # noqa: T201 - whoever started us waits for this line


if __name__ == "__main__":
    anyio.run(_live, Path(sys.argv[1]))
