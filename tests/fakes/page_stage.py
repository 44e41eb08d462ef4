"""A backend for the status page, whose state a test sets; and one with the state of an afternoon's work."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from random import Random

import msgspec

from stoker.daemon.insight import Insight
from stoker.daemon.journal import Line
from stoker.daemon.readiness import Board
from stoker.daemon.records import PerSecond, Records, Row
from stoker.ipc.control_messages import (
    Departure,
    PrefixStatus,
    Readiness,
    RequestCounts,
    StatusReport,
    WarmupStatus,
    WorkerStatus,
)
from stoker.ipc.messages import CacheFigures, StoreFigures
from tests.fakes.fake_dispatch import READY, FakeBackend, FakeBoard

MIB = 1 << 20

PREFIXES = (
    PrefixStatus(name="coding-agent", tokens=18_214, tokens_warm=18_214, source="restored", seconds=0.41),
    PrefixStatus(name="system", tokens=1_832, tokens_warm=1_832, source="restored", seconds=0.06),
    PrefixStatus(name="learned-7f3a", tokens=4_410, tokens_warm=4_410, source="prefilled", seconds=9.72),
)
CACHE = CacheFigures(
    entries=9, pinned=3, bytes=1_310 * MIB, limit_bytes=2_048 * MIB, hits=412, misses=37, evictions=5
)
STORE = StoreFigures(
    entries=6, bytes=3_420 * MIB, budget_bytes=8_192 * MIB, saved=2, restored=2, notes=(), quarantined=0
)


@dataclass
class Shown(FakeBackend):
    """A backend whose board is a real one, so that it can be watched."""

    departures: list[Departure] = field(default_factory=list)
    report: dict[str, object] = field(default_factory=dict)
    """Fields of the status report that are not the board's."""

    def __post_init__(self) -> None:
        self.real = Board(self.board.current, time.monotonic)
        self.board = self.real  # type: ignore[assignment] # a gateway can't tell them apart
        self.insight = Insight.over(self.real, Records(), lambda: self.departures)

    def publish(self, **changes: object) -> None:
        """A new snapshot, which differs from the current one in this."""
        self.real.publish(msgspec.structs.replace(self.real.current, **changes))

    async def status(self) -> StatusReport:
        return msgspec.structs.replace(await super().status(), **self.report)


def afternoon() -> Shown:
    """A daemon with hours behind it: a crash, a restart, six requests in hand and dozens that ended."""
    now = time.time()
    departures: list[Departure] = []
    first = msgspec.structs.replace(
        READY, ready=False, warm=False, phase="starting", generation=1, since=now - 15_342
    )
    shown = Shown(departures=departures, board=FakeBoard(first))
    shown.models.id = "Qwen3-30B-A3B-Instruct-4bit"
    _phases(shown, now)
    shown.report = {
        "http": "http://127.0.0.1:11500",
        "pid": 48_211,
        "uptime": 15_342.0,
        "version": "0.1.0",
        "worker": WorkerStatus(pid=51_877, uptime=2_533.0, memory_bytes=18_770 * MIB),
        "prefixes": PREFIXES,
        "cache": CACHE,
        "store": STORE,
        "requests": RequestCounts(running=3, waiting=1, served=433, resumed=2, cancelled=11, failed=1),
    }
    records = shown.insight.records
    records._readers = records._readers[1:]  # dozens of lines would be logged
    _throughput(records, Random(7))
    _ended(records, now, Random(3))
    _in_hand(records)
    _lines(shown, now)
    return shown


def _phases(shown: Shown, now: float) -> None:
    course = (
        (-15_340, "loading", 1, None),
        (-15_318, "warming", 1, None),
        (-15_260, "ready", 1, None),
        (-6_120, "backoff", 1, "crashed with SIGABRT"),
        (-6_119, "starting", 2, None),
        (-6_117, "loading", 2, None),
        (-6_098, "warming", 2, None),
        (-6_095, "ready", 2, None),
        (-2_530, "ready", 3, None),
    )
    cold = WarmupStatus(outcome=None, seconds=0.0)
    warmup = WarmupStatus(outcome="succeeded", seconds=10.2, prefixes=PREFIXES)
    for ago, phase, generation, cause in course:
        if cause:
            shown.departures.append(Departure(at=now + ago, generation=generation, cause=cause))
        if generation == 3:
            shown.departures.append(Departure(at=now + ago, generation=2, cause="restart", expected=True))
        ready = phase == "ready"
        shown.publish(
            ready=ready,
            phase=phase,
            warm=ready,
            generation=generation,
            since=now + ago,
            reason=cause,
            warmup=warmup if ready else cold,
        )


def _throughput(records: Records, random: Random) -> None:
    now = records.clock()

    def fill(rates: PerSecond, second: int, mean: float) -> None:
        rates.add(max(0, int(random.gauss(mean, mean * 0.08))), now - second)

    busy = True
    for second in range(598, -1, -1):
        if random.random() < 0.03:
            busy = not busy
        if busy:
            fill(records.decoded, second, 86 if second > 240 else 118)
        if random.random() < (0.06 if busy else 0.01):
            fill(records.prefilled, second, 640)


def _ended(records: Records, now: float, random: Random) -> None:
    before = records.clock, records.wall
    for place in range(56):
        ago = (56 - place) * 10.3
        warm = random.random() < 0.82
        prompt = random.choice((18_402, 19_877, 21_030, 2_112, 4_630))
        first = random.lognormvariate(-1.0, 0.35) if warm else random.lognormvariate(1.9, 0.4)
        tokens = int(random.lognormvariate(5, 0.8))
        end = before[0]() - ago
        row = _row_at(records, end - tokens / 84 - first)
        row.waits(0)
        row.given(3)
        row.admitted(prompt, int(prompt * (0.96 if warm else 0.02)))
        records.clock = lambda at=end - tokens / 84: at  # type: ignore[misc]
        row.tokens(1)
        records.clock = lambda at=end: at  # type: ignore[misc]
        row.completion_tokens += tokens - 2
        row.tokens(1)
        row.resumed = 1 if place == 52 else 0
        row.cause = "3 workers in a row were lost before this request got any further" if place == 50 else None
        records.wall = lambda at=now - ago: at  # type: ignore[misc]
        records.close(row, "failed" if place == 50 else "cancelled" if place % 19 == 7 else "served")
    records.clock, records.wall = before


def _row_at(records: Records, at: float) -> Row:
    records.clock = lambda: at
    return records.open()


def _in_hand(records: Records) -> None:
    clock = time.monotonic
    for seconds, cached, prompt, done, tokens in (
        (14.2, 18_214, 19_020, 0, 1_012),
        (6.1, 18_214, 22_704, 0, 288),
        (3.4, 1_832, 14_230, 9_728, 0),
    ):
        row = _row_at(records, clock() - seconds)
        row.given(3)
        row.admitted(prompt, cached)
        records.clock = clock
        row.done = done or prompt
        if tokens:
            row.tokens(1)
            row.completion_tokens = tokens
    row = _row_at(records, clock() - 0.8)
    row.waits(0)
    records.clock = clock


def _lines(shown: Shown, now: float) -> None:
    told = (
        (
            -6_120,
            "warning",
            "phase",
            "phase=backoff generation=1 warm=False reason=crashed with SIGABRT retry_after=1.1",
        ),
        (-6_119, "info", "phase", "phase=starting generation=2 warm=False"),
        (-6_117, "info", "phase", "phase=loading generation=2 warm=False"),
        (-6_098, "info", "phase", "phase=warming generation=2 warm=False"),
        (
            -6_095,
            "info",
            "phase",
            "phase=ready generation=2 warm=True warmup=succeeded warmup_seconds=2.9 tokens_warm=20046",
        ),
        (-2_560, "info", "successor", "generation=3 phase=starting why=restart"),
        (
            -2_530,
            "info",
            "phase",
            "phase=ready generation=3 warm=True warmup=succeeded warmup_seconds=10.2 tokens_warm=24456",
        ),
    )
    for number, (ago, level, event, facts) in enumerate(told, 1):
        shown.insight.journal._lines.append(Line(number=number, at=now + ago, level=level, event=event, facts=facts))


def warming(shown: Shown) -> None:
    """The same daemon while a new worker warms."""
    shown.publish(ready=False, phase="warming", warm=False, since=time.time(), generation=4, reason=None)


__all__ = ["PREFIXES", "READY", "Readiness", "Shown", "afternoon", "warming"]
