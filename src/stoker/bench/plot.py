"""The curves as a picture: time to first token over the length of the prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .findings import Findings
from .report import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {
    "cold": {"color": "#4269d0", "marker": "o"},
    "first warm": {"color": "#ff725c", "marker": "s"},
    "warm": {"color": "#efb118", "marker": "^"},
    "restored": {"color": "#3ca951", "marker": "D"},
}
KINDS: Mapping[str, Callable[[Findings], Series]] = {
    "cold": lambda one: one.cold,
    "first warm": lambda one: one.first_warm,
    "warm": lambda one: one.warm,
    "restored": lambda one: one.restored,
}
"""Of requests."""
LABELS = {"cold": -10, "restored": 3, "warm": -9}
"""Whose medians are written beside the curve's points, and how much higher: restored and warm lie close together."""
SIZE = (8.0, 4.8)
"""Inches."""

Points = list[tuple[float, Series]]


def curves(findings: Sequence[Findings], kinds: Iterable[str] = KINDS) -> dict[str, Points]:
    """For each kind of request its points, by tokens of the prompt."""
    ordered = sorted(findings, key=lambda one: one.prompt.median)
    return {kind: [(one.prompt.median, KINDS[kind](one)) for one in ordered] for kind in kinds}


def draw(points: Mapping[str, Points], path: Path, caption: str) -> None:
    """Write the picture; its format is that of the path's ending.

    Args:
        points: Of `curves`.
        path: Ends in .svg, .png or .pdf.
        caption: On what it was measured.

    Raises:
        OSError: It can't be written.
        ValueError: There is no such format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - takes a second, and only plots need it
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for kind, one in points.items():
        _curve(axes, kind, one)
    axes.set_xlim(0, 1.15 * max(at for one in points.values() for at, _ in one))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(_seconds)
    axes.yaxis.set_minor_formatter(_seconds)
    axes.margins(y=0.12)
    axes.set_xlabel("tokens of the prompt")
    axes.set_ylabel("time to the first token, logarithmic")
    figure.suptitle("Time to first token")
    axes.set_title(caption, fontsize=7, alpha=0.7)
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _curve(axes: Axes, kind: str, points: Points) -> None:
    tokens, series = [at for at, _ in points], [each for _, each in points]
    medians = [each.median for each in series]
    spread = [[each.median - each.low for each in series], [each.high - each.median for each in series]]
    axes.errorbar(tokens, medians, yerr=spread, label=kind, capsize=3, linewidth=1.6, **STYLES[kind])  # type: ignore[arg-type]
    for at, median in zip(tokens, medians, strict=True):
        if kind in LABELS:
            where = {"xytext": (7, LABELS[kind]), "textcoords": "offset points", "fontsize": 8}
            axes.annotate(str(Series((median,))), (at, median), color=STYLES[kind]["color"], **where)  # type: ignore[arg-type]


def _seconds(value: float, _position: float) -> str:
    """A tick: those whose first digit is 1, 2 or 5, or the axis is full of them."""
    return str(Series((value,))) if f"{value:e}"[0] in "125" else ""
