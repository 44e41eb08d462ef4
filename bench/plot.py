"""The curves as a picture: time to first token over the length of the prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.report import Series
from bench.trials import Findings

STYLES = {
    "cold": {"color": "#4269d0", "marker": "o"},
    "first warm": {"color": "#ff725c", "marker": "s"},
    "warm": {"color": "#efb118", "marker": "^"},
    "restored": {"color": "#3ca951", "marker": "D"},
}
SIZE = (8.0, 4.8)
"""Inches."""

Points = list[tuple[float, Series]]


def curves(findings: Sequence[Findings]) -> dict[str, Points]:
    """For each kind of request its points, by tokens of the prompt."""
    kinds: dict[str, Callable[[Findings], Series | None]] = {
        "cold": lambda one: one.cold,
        "first warm": lambda one: one.first_warm,
        "warm": lambda one: one.warm,
        "restored": lambda one: one.restored,
    }
    ordered = sorted(findings, key=lambda one: one.prompt.median)
    return {
        kind: [(one.prompt.median, series) for one in ordered if (series := measure(one))]
        for kind, measure in kinds.items()
    }


def draw(findings: Sequence[Findings], path: Path, caption: str) -> None:
    """Write the picture; its format is that of the path's ending.

    Args:
        findings: Of one server, one for each size.
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
    for kind, points in curves(findings).items():
        tokens, series = [at for at, _ in points], [one for _, one in points]
        medians = [one.median for one in series]
        spread = [[one.median - one.low for one in series], [one.high - one.median for one in series]]
        axes.errorbar(tokens, medians, yerr=spread, label=kind, capsize=3, linewidth=1.6, **STYLES[kind])  # type: ignore[arg-type]
    axes.set_yscale("log")
    axes.set_xlabel("tokens of the prompt")
    axes.set_ylabel("seconds to the first token")
    axes.set_title("Time to first token")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    figure.text(0.995, 0.005, caption, ha="right", va="bottom", fontsize=6, alpha=0.7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
