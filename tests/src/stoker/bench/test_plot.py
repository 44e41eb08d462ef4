"""The picture of the curves."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.bench.findings import Findings
from stoker.bench.plot import curves, draw
from tests.fakes.bench_trials import trial_of

FOUND = [Findings(size, [trial_of(size, cold=size / 100)]) for size in (2000, 500)]


def test_each_kind_of_request_has_a_point_for_each_size() -> None:
    """Cold, first warm, warm and restored, from the shortest prompt to the longest; or only those asked for."""
    found = curves(FOUND)

    assert list(found) == ["cold", "first warm", "warm", "restored"]
    assert [(at, series.median) for at, series in found["cold"]] == [(500, 5.0), (2000, 20.0)]
    assert [series.median for _, series in found["restored"]] == [0.3, 0.3]
    assert list(curves(FOUND, ["cold", "warm"])) == ["cold", "warm"]


@pytest.mark.parametrize(
    ("ending", "begin"), [("svg", b"<?xml ve"), ("png", b"\x89PNG\r\n\x1a\n"), ("pdf", b"%PDF-1.4")]
)
def test_the_picture_is_written(tmp_path: Path, ending: str, begin: bytes) -> None:
    """In the format that the file's ending says, into a folder that is made."""
    path = tmp_path / "images" / f"warmth.{ending}"
    draw(curves(FOUND), path, "a machine")

    assert path.read_bytes()[:8] == begin


def test_one_size_can_be_drawn(tmp_path: Path) -> None:
    """A single point for each kind is a picture, too."""
    draw(curves(FOUND[:1]), tmp_path / "one.png", "a machine")

    assert (tmp_path / "one.png").stat().st_size > 1000
