"""Series, ratios and the verdict of a report."""

from __future__ import annotations

import json

import pytest

from stoker.bench.report import Check, Difference, Ratio, Report, Section, Series


def section(*checks: Check) -> Section:
    return Section("a", "A", "how", ("x", "y"), (("1", "2"),), {"figure": 1}, checks)


def test_series_has_median_and_spread() -> None:
    """A series tells its median, its extremes, and nearest-rank percentiles."""
    series = Series.of([0.3, 0.1, 0.2, 0.4])

    assert (series.median, series.low, series.high) == (0.25, 0.1, 0.4)
    assert series.percentile(0.5) == 0.2
    assert series.percentile(0.99) == 0.4


def test_percentile_of_many() -> None:
    """The 99th percentile of a hundred values is the second largest."""
    assert Series.of(range(1, 101)).percentile(0.99) == 99


def test_empty_series_is_refused() -> None:
    """What was not measured has no figure."""
    with pytest.raises(ValueError, match="at least one"):
        Series.of([])


@pytest.mark.parametrize(
    ("values", "unit", "shown"),
    [
        ([1.984, 1.9, 2.04], "s", "1.98 s (1.90-2.04)"),
        ([0.1634], "s", "163 ms"),
        ([0.0000421, 0.00008, 0.00011], "s", "80.0 µs (42.1-110)"),
        ([61_027_123], "B", "58.2 MiB"),
        ([0.0], "s", "0.00 µs"),
        ([2007, 2007], "tokens", "2007 tokens"),
    ],
)
def test_series_is_shown_in_a_fitting_unit(values: list[float], unit: str, shown: str) -> None:
    """A person reads three digits, the unit that suits the median, and the spread where there is one."""
    assert str(Series.of(values, unit)) == shown


def test_long_series_keep_their_shape_only() -> None:
    """The JSON of thousands of values holds figures, not the values; of a few it holds both."""
    assert Series.of([1, 2]).data()["values"] == [1, 2]
    assert "values" not in Series.of(range(1000)).data()
    assert Series.of(range(1000)).data()["n"] == 1000


def test_ratio_has_all_the_spread_of_both() -> None:
    """A ratio goes from the smallest dividend by the largest divisor to the opposite."""
    ratio = Ratio.of(Series.of([10, 12, 14]), Series.of([0.2, 0.25, 0.3]))

    assert (ratio.median, round(ratio.low, 2), ratio.high) == (48, 33.33, 70)
    assert str(ratio) == "48.0x (33.3-70.0)"


def test_difference_is_that_of_the_medians() -> None:
    """An overhead is what one median is over the other, and may be negative."""
    assert Difference.of(Series.of([1, 2, 9]), Series.of([1, 1.5, 2])).median == 0.5
    assert str(Difference.of(Series.of([0.001]), Series.of([0.0015]))) == "-500 µs"


def test_missed_target_is_not_wrong() -> None:
    """A figure that a busy machine misses doesn't fail the run; a broken promise does."""
    missed, broken = Check("fast", "slow", ok=False, target=True), Check("same", "differs", ok=False)

    assert Report("c", {}, [section(missed)]).correct
    assert not Report("c", {}, [section(missed), section(broken)]).correct


def test_report_is_json() -> None:
    """A report becomes JSON, with the sections by their keys and the checks in them."""
    data = json.loads(json.dumps(Report("make bench", {"quick": True}, [section(Check("p", "f", ok=True))]).data()))

    assert data["command"] == "make bench"
    assert data["sections"]["a"]["figure"] == 1
    assert data["sections"]["a"]["checks"] == [{"promise": "p", "found": "f", "ok": True, "target": False}]
