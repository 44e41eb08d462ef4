"""What people may say to a benchmark; what they may not is a `ValueError` that tells what is allowed."""

from __future__ import annotations

from pathlib import Path

LEAST_TOKENS, MOST_TOKENS = 100, 100_000
"""Of a system prompt. Stoker learns none under 64: they are computed about as fast as they are looked up."""
MOST_REPEATS = 1000
PICTURES = (".svg", ".png", ".pdf")


def sizes(text: str) -> tuple[int, ...]:
    """`500,2000`, each once and in this order."""
    parts = [part.strip() for part in text.split(",")]
    given = tuple(dict.fromkeys(int(part) for part in parts if part.isdecimal()))
    if not all(part.isdecimal() for part in parts) or not all(LEAST_TOKENS <= size <= MOST_TOKENS for size in given):
        raise ValueError(
            f"{text!r}: give tokens from {LEAST_TOKENS} to {MOST_TOKENS}, with commas between, like 500,2000"
        )
    return given


def count(text: str) -> int:
    """A number of repeats."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST_REPEATS:
        raise ValueError(f"{text!r}: give a whole number from 1 to {MOST_REPEATS}")
    return int(text)


def picture(text: str) -> Path:
    """A file that a picture may go to."""
    path = Path(text)
    if path.suffix not in PICTURES:
        raise ValueError(f"{text!r}: give a file that ends in {', '.join(PICTURES)}")
    return path
