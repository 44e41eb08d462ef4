"""What people may say to a benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.bench.options import count, picture, sizes


def test_sizes_are_taken_as_given() -> None:
    """In their order, each once, with spaces or without."""
    assert sizes("2000,500, 2000") == (2000, 500)


@pytest.mark.parametrize("text", ["", "5", "500;2000", "500,", "-500", "1e3", "100001"])
def test_bad_sizes_are_refused(text: str) -> None:
    """Sizes that can't be measured are refused, and the message says what can."""
    with pytest.raises(ValueError, match="from 100 to 100000"):
        sizes(text)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1001", ""])
def test_bad_repeats_are_refused(text: str) -> None:
    """A number of repeats is a whole number, and not endless."""
    with pytest.raises(ValueError, match="from 1 to 1000"):
        count(text)


def test_a_picture_has_a_format() -> None:
    """Its file's ending says which; one that says none is refused with those there are."""
    assert picture("a/b.png") == Path("a/b.png")
    with pytest.raises(ValueError, match=r"\.svg, \.png, \.pdf"):
        picture("b.doc")
