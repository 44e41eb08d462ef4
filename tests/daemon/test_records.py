"""Rows of running requests, and records of those that ended."""

from __future__ import annotations

import msgspec
import pytest
from structlog.testing import capture_logs

from stoker.daemon.records import CAUSE_LIMIT, RECORDS_KEPT, SECONDS_KEPT, Gaps, PerSecond, Record, Records, short


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(clock: Clock) -> Records:
    return Records(clock, lambda: 1.0)


def test_record_tells_a_requests_course(clock: Clock, records: Records) -> None:
    """A request's record has what it waited, its time to the first token, its tokens and how long they took."""
    row = records.open()
    row.waits(2)
    clock.now += 3
    row.given(4)
    row.admitted(100, 60)
    clock.now += 1
    row.prefill(100, 100)
    row.tokens(1)
    clock.now += 2
    row.tokens(3)
    row.finished(100, 60, 5)
    records.close(row, "served")

    (record,) = records.ended
    assert record == Record(
        number=1,
        at=1.0,
        outcome="served",
        generation=4,
        resumed=0,
        waited=3.0,
        first_token=4.0,
        decoding=2.0,
        seconds=6.0,
        prompt_tokens=100,
        cached_tokens=60,
        completion_tokens=5,
        cause=None,
    )
    assert records.live == ()


def test_row_tells_where_a_request_is(clock: Clock, records: Records) -> None:
    """While it is in hand, a row says the stage, who is ahead, and how far prefill and answer are."""
    row = records.open()
    row.waits(2)
    assert (row.now().stage, row.now().ahead) == ("waiting", 2)

    row.given(1)
    row.admitted(100, 60)
    row.prefill(80, 100)
    assert (row.now().stage, row.now().ahead, row.now().done, row.now().total) == ("prefill", 0, 80, 100)

    row.tokens(2)
    clock.now += 1.5
    assert (row.now().stage, row.now().completion_tokens, row.now().seconds) == ("decoding", 2, 1.5)
    assert records.live == (row,)


def test_resumed_request_is_told(clock: Clock, records: Records) -> None:
    """A request that went on with another worker says so, and its second wait counts as one."""
    row = records.open()
    row.given(1)
    row.tokens(1)
    row.waits(0)
    clock.now += 5
    row.given(2)
    records.close(row, "cancelled")

    assert (records.ended[0].resumed, records.ended[0].generation, records.ended[0].waited) == (1, 2, 5.0)


def test_cached_tokens_are_no_prefill(records: Records) -> None:
    """The rate of prefill counts what was computed: not what was cached, and not what a next worker had already."""
    row = records.open()
    row.given(1)
    row.admitted(100, 60)
    row.prefill(90, 100)
    row.given(2)
    row.prefill(95, 103)
    row.prefill(103, 103)

    assert records.prefilled.total == 30 + 8


def test_memory_is_bounded(records: Records) -> None:
    """However many requests come, so many records are kept."""
    for _ in range(RECORDS_KEPT + 10):
        records.close(records.open(), "cancelled")

    assert len(records.ended) == RECORDS_KEPT
    assert records.closed == RECORDS_KEPT + 10
    assert len(short("x" * 1000)) == CAUSE_LIMIT + 1


def test_readers_hear_each_record(records: Records) -> None:
    """Who has subscribed gets every record; so does the log, at debug, with numbers only."""
    heard: list[Record] = []
    records.subscribe(heard.append)
    with capture_logs() as logs:
        records.close(records.open(), "failed")

    assert heard == list(records.ended)
    assert [(line["log_level"], line["event"], line["outcome"]) for line in logs] == [("debug", "request", "failed")]


def test_record_has_no_place_for_text() -> None:
    """Nothing in a record but the cause and the outcome could hold a word."""
    texts = {field.name for field in msgspec.structs.fields(Record) if "str" in str(field.type)}
    words = {field.name for field in msgspec.structs.fields(Record) if "Literal" in str(field.type)}

    assert (texts, words) == ({"cause"}, {"outcome"})


def test_throughput_is_counted_by_the_second() -> None:
    """What came in each second is kept for ten minutes; seconds in which nothing came are 0."""
    rates = PerSecond()
    rates.add(3, 1000.2)
    rates.add(4, 1000.9)
    rates.add(5, 1002.0)

    assert rates.last(3, 1003.5) == [7, 0, 5]
    assert rates.last(3, 1003.5 + SECONDS_KEPT) == [0, 0, 0]
    assert rates.total == 12


def test_gaps_are_of_single_tokens() -> None:
    """A step of several tokens counts as so many gaps of equal length."""
    gaps = Gaps()
    gaps.add(0.04, 4)
    gaps.add(0.3, 1)

    assert gaps.sum == pytest.approx(0.34)
    assert gaps.cumulative()[2] == 4
    assert gaps.cumulative()[-1] == 5


def test_text_that_was_held_back_is_no_token(records: Records) -> None:
    """A delta without tokens changes neither the time to the first one nor the counts."""
    row = records.open()
    row.given(1)
    row.tokens(0)

    assert (row.now().stage, row.now().completion_tokens, records.decoded.total) == ("prefill", 0, 0)
