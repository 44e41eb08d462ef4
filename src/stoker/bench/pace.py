"""How long the rest will take, told from the cold requests so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

GROWTH = 1.4
"""Prefill grows with the prompt's tokens to this power. On two cores 500 to 2,000 tokens gave 1.33, 2,000 to 4,000
gave 1.61 (docs/benchmarks.md); a GPU is nearer to 1, and is told too much."""

BESIDES = 9.0
"""Seconds of a trial beside its two prefills: three new workers, requests that are warm, a save."""


def seconds_left(colds: Mapping[int, float], ahead: Sequence[int]) -> float:
    """Seconds until all is measured.

    Args:
        colds: Seconds of a cold request, by the sizes of which one was made; at least one.
        ahead: Sizes of the trials that are not over. The first one's cold request is.
    """
    whole = sum(2 * _cold(colds, size) + BESIDES for size in ahead)
    return whole - _cold(colds, ahead[0])


def _cold(colds: Mapping[int, float], size: int) -> float:
    """As measured; else scaled from the nearest size that was."""
    nearest = min(colds, key=lambda known: abs(known - size))
    return float(colds[nearest] * (size / nearest) ** GROWTH)


def in_words(seconds: float) -> str:
    """A guess in as many digits as it deserves."""
    return f"about {round(seconds, -1):.0f} s" if seconds < 95 else f"about {seconds / 60:.0f} min"
