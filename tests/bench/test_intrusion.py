"""What is concluded from clients that leave and prompts that join."""

from __future__ import annotations

from bench.intrusion import CHUNK, Joined, Plan, joining, leaving
from bench.peer import NAME
from bench.rivals import STOKER
from stoker.bench.report import Series

PLAN = Plan(repeats=1, prompt_tokens=2000, streams=4)


def test_whoever_left_may_cost_a_chunk() -> None:
    """A delay of up to one chunk is what was promised, more is not; the peer's is shown and not judged."""

    def found(after: float) -> dict[str, tuple[Series, Series]]:
        return {STOKER: (Series((0.1,)), Series((after,))), NAME: (Series((0.1,)), Series((23.0,)))}

    assert [check.ok for check in leaving(found(0.1 + CHUNK)).checks] == [True]
    assert [check.ok for check in leaving(found(0.2 + CHUNK)).checks] == [False]
    assert leaving(found(0.2)).rows[1][0] == NAME


def test_gaps_are_judged_by_their_tail() -> None:
    """One long silence among few gaps is the 99th percentile, and must be shorter than the peer's."""
    ahead = joining({STOKER: [Joined((0.1, 0.6), 30.0)], NAME: [Joined((0.1, 20.0), 22.0)]}, PLAN)
    behind = joining({STOKER: [Joined((0.1, 21.0), 30.0)], NAME: [Joined((0.1, 20.0), 22.0)]}, PLAN)

    assert [check.ok for check in ahead.checks] == [True]
    assert [check.ok for check in behind.checks] == [False]
    assert ahead.rows[0][1:3] == ("600 ms", "20.0 s")
