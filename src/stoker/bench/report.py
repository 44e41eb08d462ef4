"""What was measured: series of numbers, sections of a report, and the JSON of both. No I/O, no clock."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

FORMAT = 1
"""Of the JSON; fields are only ever added."""

Json: TypeAlias = dict[str, Any]

_SCALES = {"s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")), "B": ((1 << 20, "MiB"), (1 << 10, "KiB"))}
"""Units for people, largest first."""


@dataclass(frozen=True, slots=True)
class Series:
    """Repeated measurements of one thing, in the order in which they were made.

    Attributes:
        values: At least one.
        unit: `s`, `B`, or a plain word.
    """

    values: tuple[float, ...]
    unit: str = "s"

    @classmethod
    def of(cls, values: Iterable[float], unit: str = "s") -> Series:
        """A series of these values.

        Raises:
            ValueError: If there are none: what was not measured has no figure.
        """
        taken = tuple(values)
        if not taken:
            raise ValueError("a series needs at least one value")
        return cls(taken, unit)

    @property
    def median(self) -> float:
        """The middle one; of an even number the mean of the middle two."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The smallest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.values)

    def percentile(self, share: float) -> float:
        """The smallest value that at least `share` (0 to 1) of the values don't exceed (nearest rank)."""
        return sorted(self.values)[max(0, math.ceil(share * len(self.values)) - 1)]

    def data(self) -> Json:
        """For JSON. Of long series only the shape is kept."""
        kept = {"values": [_rounded(value) for value in self.values]} if len(self.values) <= 50 else {}
        figures = {
            "median": self.median,
            "min": self.low,
            "max": self.high,
            "p90": self.percentile(0.9),
            "p99": self.percentile(0.99),
        }
        return {"unit": self.unit, "n": len(self.values)} | {k: _rounded(v) for k, v in figures.items()} | kept

    def __str__(self) -> str:
        """Median and spread: `163 ms (158-171)`; the median alone where there is one value."""
        factor, unit = _scale(self.median, self.unit)
        shown = _number(self.median / factor)
        return f"{shown} {unit}" + _spread(self.low / factor, self.high / factor)


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times larger one series is than another.

    Attributes:
        median: Of the medians.
        low: The worst case that the data allows: smallest dividend by largest divisor.
        high: The best one.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, dividend: Series, divisor: Series) -> Ratio:
        """The ratio, with all the spread that both have."""
        return cls(dividend.median / divisor.median, dividend.low / divisor.high, dividend.high / divisor.low)

    def data(self) -> Json:
        """For JSON."""
        return {"unit": "x", "median": _rounded(self.median), "min": _rounded(self.low), "max": _rounded(self.high)}

    def __str__(self) -> str:
        return f"{_number(self.median)}x" + _spread(self.low, self.high)


@dataclass(frozen=True, slots=True)
class Difference:
    """How much one series' median is over another's; single differences of unpaired values mean nothing."""

    median: float
    unit: str

    @classmethod
    def of(cls, series: Series, base: Series) -> Difference:
        """What `series` costs more than `base`."""
        return cls(series.median - base.median, series.unit)

    def data(self) -> Json:
        """For JSON."""
        return {"unit": self.unit, "median": _rounded(self.median)}

    def __str__(self) -> str:
        return str(Series((self.median,), self.unit))


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold, or a figure that is to be reached.

    Attributes:
        promise: What.
        found: What was found.
        ok: Whether it holds.
        target: A figure to be reached, which a busy machine may miss. Else it is about correctness.
    """

    promise: str
    found: str
    ok: bool
    target: bool = False

    def data(self) -> Json:
        """For JSON."""
        return {"promise": self.promise, "found": self.found, "ok": self.ok, "target": self.target}


@dataclass(frozen=True, slots=True)
class Section:
    """One table.

    Attributes:
        key: Name in the JSON.
        title: Heading.
        method: How it was measured, in a sentence or two.
        header: Column names.
        rows: Cells.
        data: The numbers behind it.
        checks: What it proves.
    """

    key: str
    title: str
    method: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    data: Json
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    command: str
    facts: Json
    """Machine, versions, settings."""
    sections: Sequence[Section] = field(default_factory=tuple)

    @property
    def correct(self) -> bool:
        """Whether nothing is wrong. Figures that were not reached don't count: they depend on the machine."""
        return all(check.ok or check.target for section in self.sections for check in section.checks)

    def data(self) -> Json:
        """For JSON."""
        sections = {
            section.key: section.data | {"checks": [check.data() for check in section.checks]}
            for section in self.sections
        }
        return {"format": FORMAT, "command": self.command, "facts": self.facts, "sections": sections}


def _scale(value: float, unit: str) -> tuple[float, str]:
    scales = _SCALES.get(unit, ((1.0, unit),))
    return next((scale for scale in scales if abs(value) >= scale[0]), scales[-1])


def _number(value: float) -> str:
    """Three significant digits, and all digits of whole numbers."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    digits = 2 if abs(value) < 10 else 1
    return f"{value:.{digits}f}"


def _spread(low: float, high: float) -> str:
    return f" ({_number(low)}-{_number(high)})" if low != high else ""


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
