"""What the daemon remembers of requests: a live row while one is in hand, an immutable record once it ended.

Numbers and causes only: no prompt, no answer, no key. `dispatch` feeds it; metrics, the status page and the log read.
A row is fed at every delta, 20,000 times a second in the worst case, so that `Row.tokens` makes no object.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from itertools import accumulate, count
from typing import Literal, TypeAlias

import msgspec
import structlog

Outcome: TypeAlias = Literal["served", "failed", "cancelled"]
OUTCOMES: tuple[Outcome, ...] = ("served", "failed", "cancelled")
Stage: TypeAlias = Literal["waiting", "prefill", "decoding"]

RECORDS_KEPT = 256
"""Of requests that ended; the newest."""

SECONDS_KEPT = 600
"""Of throughput: what a chart of ten minutes needs."""

CAUSE_LIMIT = 300
"""Characters of a failure's cause."""

GAPS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.2, 0.35, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds in seconds of the classes of inter-token time: 500 tokens/s down to a pause for a new worker."""

log = structlog.get_logger("stoker.requests")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A request that ended. Times in seconds; what did not happen is None.

    Attributes:
        at: When it ended, Unix time.
        generation: Of the worker that had it last; 0 for none.
        resumed: How often it went on with another worker.
        waited: Before a worker had it, and between workers.
        first_token: From its arrival.
        decoding: From the first token to the last.
        cause: Of a failure.
    """

    number: int
    at: float
    outcome: Outcome
    generation: int
    resumed: int
    waited: float
    first_token: float | None
    decoding: float | None
    seconds: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cause: str | None


class LiveRow(msgspec.Struct, frozen=True, kw_only=True):
    """A request in hand, as of now. `done` of `total` prompt tokens are in the cache."""

    number: int
    stage: Stage
    ahead: int
    generation: int
    resumed: int
    prompt_tokens: int
    cached_tokens: int
    done: int
    total: int
    completion_tokens: int
    seconds: float


class PerSecond:
    """Counts of each of the last `SECONDS_KEPT` seconds. Nothing runs while nothing comes."""

    __slots__ = ("_counts", "_stamps", "total")

    def __init__(self) -> None:
        self.total = 0
        self._counts = [0] * SECONDS_KEPT
        self._stamps = [-1] * SECONDS_KEPT

    def add(self, number: int, now: float) -> None:
        """So many more at `now`."""
        self.total += number
        second = int(now)
        place = second % SECONDS_KEPT
        if self._stamps[place] != second:
            self._stamps[place] = second
            self._counts[place] = 0
        self._counts[place] += number

    def last(self, seconds: int, now: float) -> list[int]:
        """Of each of the last whole seconds, the oldest first."""
        return [self._of(second) for second in range(int(now) - seconds, int(now))]

    def _of(self, second: int) -> int:
        place = second % SECONDS_KEPT
        return self._counts[place] if self._stamps[place] == second else 0


class Gaps:
    """A histogram of inter-token times, cheap enough for every token. A gap before n tokens counts as n of a nth."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(GAPS) + 1)
        self.sum = 0.0

    def add(self, gap: float, tokens: int) -> None:
        """So many tokens came after so many seconds."""
        self.counts[bisect_left(GAPS, gap / tokens)] += tokens
        self.sum += gap

    def cumulative(self) -> list[int]:
        """How many were at most as long as each of `GAPS`, and at last all."""
        return list(accumulate(self.counts))


class Row:
    """One request in hand; only `Records.open` makes one."""

    __slots__ = (
        "_arrived",
        "_first",
        "_last",
        "_records",
        "_waited",
        "_waiting_since",
        "ahead",
        "cached_tokens",
        "cause",
        "completion_tokens",
        "done",
        "generation",
        "number",
        "prompt_tokens",
        "resumed",
        "stage",
        "total",
    )

    def __init__(self, records: Records, number: int, now: float) -> None:
        self._records = records
        self._arrived = now
        self._waiting_since: float | None = None
        self._waited = 0.0
        self._first: float | None = None
        self._last = now
        self.number = number
        self.stage: Stage = "waiting"
        self.ahead = self.generation = self.resumed = 0
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = 0
        self.done = self.total = 0
        self.cause: str | None = None

    def waits(self, ahead: int) -> None:
        """It has no worker, and so many go before it."""
        self.stage, self.ahead = "waiting", ahead
        if self._waiting_since is None:
            self._waiting_since = self._records.clock()

    def given(self, generation: int) -> None:
        """A worker has it now: the first, or the next after a loss."""
        self.resumed += self.generation != 0
        self.generation = generation
        self.stage, self.ahead, self.done, self.total = "prefill", 0, 0, 0
        self._end_wait()

    def admitted(self, prompt_tokens: int, cached_tokens: int) -> None:
        """So long is its prompt, and so much of it needs no prefill."""
        self.prompt_tokens = self.total = prompt_tokens
        self.cached_tokens = self.done = cached_tokens

    def prefill(self, done: int, total: int) -> None:
        """So much of the prompt is in the cache."""
        if self.total and done > self.done:  # the first word of a next worker also counts what was cached there
            self._records.prefilled.add(done - self.done, self._records.clock())
        self.done, self.total = done, total

    def tokens(self, number: int) -> None:
        """So many tokens of the answer came. 0 is text that was held back."""
        if number == 0:
            return
        records = self._records
        now = records.clock()
        self.completion_tokens += number
        records.decoded.add(number, now)
        if self._first is None:
            self._first = now
        else:
            records.gaps.add(now - self._last, number)
        self._last = now
        self.stage = "decoding"

    def finished(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> None:
        """The worker's own count of it all, which is the right one."""
        self.prompt_tokens, self.cached_tokens = prompt_tokens, cached_tokens
        self.completion_tokens = max(completion_tokens, self.completion_tokens)

    def now(self) -> LiveRow:
        """As of now."""
        return LiveRow(
            number=self.number,
            stage=self.stage,
            ahead=self.ahead,
            generation=self.generation,
            resumed=self.resumed,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            done=self.done,
            total=self.total,
            completion_tokens=self.completion_tokens,
            seconds=round(self._records.clock() - self._arrived, 3),
        )

    def ended(self, outcome: Outcome) -> Record:
        """What remains of it."""
        self._end_wait()
        first = self._first
        return Record(
            number=self.number,
            at=self._records.wall(),
            outcome=outcome,
            generation=self.generation,
            resumed=self.resumed,
            waited=round(self._waited, 4),
            first_token=None if first is None else round(first - self._arrived, 4),
            decoding=None if first is None else round(self._last - first, 4),
            seconds=round(self._records.clock() - self._arrived, 4),
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
            cause=self.cause,
        )

    def _end_wait(self) -> None:
        if self._waiting_since is not None:
            self._waited += self._records.clock() - self._waiting_since
            self._waiting_since = None


class Records:
    """All rows, and the newest records.

    Args:
        clock: Monotonic seconds.
        wall: Unix seconds.

    Attributes:
        closed: How many requests ended.
        decoded: Tokens of answers, by the second.
        prefilled: Prompt tokens that were computed, by the second.
        gaps: Inter-token times.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.wall = wall
        self.closed = 0
        self.decoded = PerSecond()
        self.prefilled = PerSecond()
        self.gaps = Gaps()
        self._numbers = count(1)
        self._rows: dict[int, Row] = {}
        self._ended: deque[Record] = deque(maxlen=RECORDS_KEPT)
        self._readers: list[Callable[[Record], None]] = [_log]

    @property
    def live(self) -> tuple[Row, ...]:
        """Requests in hand, in the order of their arrival."""
        return tuple(self._rows.values())

    @property
    def ended(self) -> tuple[Record, ...]:
        """The newest requests that ended, the oldest of them first."""
        return tuple(self._ended)

    def subscribe(self, reader: Callable[[Record], None]) -> None:
        """Have a function called with each record, for good. It must neither raise nor wait."""
        self._readers.append(reader)

    def open(self) -> Row:
        """A request has come. Its row must be given to `close`."""
        number = next(self._numbers)
        row = self._rows[number] = Row(self, number, self.clock())
        return row

    def close(self, row: Row, outcome: Outcome) -> None:
        """It is over, and so it went."""
        del self._rows[row.number]
        record = row.ended(outcome)
        self._ended.append(record)
        self.closed += 1
        for reader in self._readers:
            reader(record)


def _log(record: Record) -> None:
    log.debug("request", **{name: getattr(record, name) for name in record.__struct_fields__ if name != "at"})


def short(cause: str) -> str:
    """A cause of bounded length."""
    return cause if len(cause) <= CAUSE_LIMIT else f"{cause[:CAUSE_LIMIT]}…"
