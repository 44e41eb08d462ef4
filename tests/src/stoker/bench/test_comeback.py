"""Which report of a warmup is the learned prefix's."""

from __future__ import annotations

from stoker.bench.comeback import report_of
from tests.fakes.bench_trials import LEARNED, prefix


def test_report_is_found_by_its_length() -> None:
    """Among the prefixes of a warmup the learned one of that length is meant, not a configured one."""
    others = (prefix("system"), prefix("learned-5e6f7a8b", tokens=500))

    assert report_of(2000, (*others, LEARNED)) is LEARNED
    assert report_of(2000, others) is None
