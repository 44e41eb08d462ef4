"""What the status page's viewers are told: each thing is made and encoded once, for however many there are.

While nobody watches, nothing runs. A viewer that doesn't read is dropped; it comes back by itself, and is told all
anew.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

import msgspec
import structlog

from ....ipc.control_messages import PrefixStatus, Readiness, RequestCounts, StatusReport
from ....ipc.messages import CacheFigures, StoreFigures
from ...journal import Line
from ...records import SECONDS_KEPT, LiveRow, Record
from ...timeline import Span
from ..backend import Backend
from ..errors import ApiError
from .words import Headline, headline

VIEWERS_LIMIT = 128
"""Pages that may watch at once."""

MAILBOX = 12
"""Events that may wait for a viewer that reads slowly: some ten seconds of them."""

SAMPLE_INTERVAL = 1.0
CALM = 0.1
"""Seconds between two snapshots at least; what comes faster is progress, of which the newest is enough."""

ROWS_SHOWN = 24
RECORDS_SHOWN = 200

_log = structlog.get_logger("stoker.gateway")


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The first event: what is not told again. The lists end with the second before `now`."""

    token: str
    """Sent back with each action, in the header `X-Stoker-Token`."""
    version: str
    model: str
    http: str
    pid: int
    now: float
    decoded: list[int]
    prefilled: list[int]
    ended: tuple[Record, ...]
    lines: list[Line]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """After each transition, and while there is progress."""

    readiness: Readiness
    spans: tuple[Span, ...]
    headline: Headline


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Every second. `decoded` and `prefilled` are tokens of the second before; `ended` and `lines` are new ones."""

    now: float
    uptime: float
    requests: RequestCounts
    live: tuple[LiveRow, ...]
    hidden: int
    """Requests in hand that `live` leaves out."""
    decoded: int
    prefilled: int
    ended: tuple[Record, ...]
    lines: list[Line]
    memory_bytes: int | None
    worker_uptime: float | None
    worker_pid: int | None
    cache: CacheFigures | None
    store: StoreFigures | None
    prefixes: tuple[PrefixStatus, ...]
    background: str | None
    notes: tuple[str, ...]
    last_words: tuple[str, ...]


class Viewer:
    """One page's mailbox; iterate over its events. The iteration ends when the viewer is dropped or dismissed.

    Args:
        drop: Called when it did not read in time: cuts its connection, for whoever writes to it waits for it.
    """

    def __init__(self, drop: Callable[[], None]) -> None:
        self.dropped = False
        """It did not read in time."""
        self._drop = drop
        self._mail: deque[bytes] = deque()
        self._bell = asyncio.Event()
        self._dismissed = False

    def put(self, event: bytes) -> None:
        """Leave an event, or drop the viewer if too many are left already."""
        if len(self._mail) >= MAILBOX:
            if not self.dropped:
                self._drop()
            self.dropped = True
            self._mail.clear()
        else:
            self._mail.append(event)
        self._bell.set()

    def dismiss(self) -> None:
        """It hears what is in its mailbox, and no more."""
        self._dismissed = True
        self._bell.set()

    async def events(self) -> AsyncIterator[bytes]:
        """What was left, as it comes."""
        while not self.dropped:
            if self._mail:
                yield self._mail.popleft()
            elif self._dismissed:
                return
            else:
                self._bell.clear()
                await self._bell.wait()


class Feed:
    """Samples a backend while somebody watches.

    Args:
        backend: What is watched.
        token: For `Hello`.
    """

    def __init__(self, backend: Backend, token: str) -> None:
        self._backend = backend
        self._token = token
        self._viewers: set[Viewer] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._last_line = self._last_record = 0
        self._sample = b""
        self._closed = False

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    async def join(self, drop: Callable[[], None]) -> tuple[Viewer, bytes]:
        """A new viewer, and the events that it is told first. `drop` is what the viewer needs it for.

        Raises:
            ApiError: 503, if too many watch already or the daemon ends.
        """
        if len(self._viewers) >= VIEWERS_LIMIT or self._closed:
            raise ApiError(
                503,
                f"{len(self._viewers)} status pages are open already; close one.",
                code="too_many_viewers",
                retry_after=10,
            )
        viewer = Viewer(drop)
        self._viewers.add(viewer)
        try:
            first = encoded("hello", await self._hello()) + encoded("state", self._state()) + self._sample
        except BaseException:
            self.leave(viewer)
            raise
        if not self._tasks:
            self._catch_up()
            self._tasks = [asyncio.create_task(work) for work in (self._tick(), self._follow())]
        return viewer, first

    def leave(self, viewer: Viewer) -> None:
        """It watches no more; with the last one the sampling ends."""
        self._viewers.discard(viewer)
        if not self._viewers:
            self._rest()

    async def close(self) -> None:
        """Dismiss everybody: the daemon ends."""
        self._closed = True
        self._publish(b"event: bye\ndata: {}\n\n")
        for viewer in self._viewers:
            viewer.dismiss()
        tasks = list(self._tasks)
        self._rest()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _rest(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self._sample = b""

    def _publish(self, event: bytes) -> None:
        for viewer in self._viewers:
            viewer.put(event)

    async def _tick(self) -> None:
        while True:
            try:
                self._sample = encoded("sample", self._make_sample(await self._backend.status()))
                self._publish(self._sample)
            except Exception:  # noqa: BLE001 - it is logged, and the next second may have a sample
                _log.exception("no sample for the status page")
            await asyncio.sleep(SAMPLE_INTERVAL)

    async def _follow(self) -> None:
        last: Readiness | None = None
        while True:
            snapshots = self._backend.board.watch()
            now = await anext(snapshots)  # the current one, at once
            if last is not None and now != last:
                self._publish(encoded("state", self._state()))
            last = now
            await asyncio.sleep(CALM)
            await anext(snapshots)

    def _catch_up(self) -> None:
        """What came while nobody watched is in `Hello`."""
        insight = self._backend.insight
        self._last_line = max((line.number for line in insight.journal.since()), default=0)
        self._last_record = insight.records.closed

    async def _hello(self) -> Hello:
        report = await self._backend.status()
        insight = self._backend.insight
        records = insight.records
        now = records.clock()
        return Hello(
            token=self._token,
            version=report.version,
            model=self._backend.models.id,
            http=report.http,
            pid=report.pid,
            now=time.time(),
            decoded=records.decoded.last(SECONDS_KEPT - 1, now),
            prefilled=records.prefilled.last(SECONDS_KEPT - 1, now),
            ended=records.ended[-RECORDS_SHOWN:],
            lines=insight.journal.since(),
        )

    def _state(self) -> State:
        now = self._backend.board.current
        return State(readiness=now, spans=self._backend.insight.timeline.spans, headline=headline(now))

    def _make_sample(self, report: StatusReport) -> Sample:
        insight = self._backend.insight
        records, now = insight.records, insight.records.clock()
        lines = insight.journal.since(self._last_line)
        self._last_line = lines[-1].number if lines else self._last_line
        fresh = records.closed - self._last_record
        self._last_record = records.closed
        live = records.live
        worker = report.worker
        return Sample(
            now=time.time(),
            uptime=report.uptime,
            requests=report.requests,
            live=tuple(row.now() for row in live[:ROWS_SHOWN]),
            hidden=max(0, len(live) - ROWS_SHOWN),
            decoded=records.decoded.last(1, now)[0],
            prefilled=records.prefilled.last(1, now)[0],
            ended=records.ended[-min(fresh, RECORDS_SHOWN) :] if fresh else (),
            lines=lines,
            memory_bytes=worker.memory_bytes if worker else None,
            worker_uptime=worker.uptime if worker else None,
            worker_pid=worker.pid if worker else None,
            cache=report.cache,
            store=report.store,
            prefixes=report.prefixes,
            background=report.background,
            notes=report.notes,
            last_words=report.last_words if report.phase in {"failed", "backoff"} else (),
        )


def encoded(name: str, document: msgspec.Struct) -> bytes:
    """An event of a stream."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(document))
