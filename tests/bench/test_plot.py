"""The picture of the curves."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.comeback import Comeback
from bench.plot import curves, draw
from bench.stopwatch import Answer
from bench.trials import Findings, Trial
from stoker.ipc.control_messages import PrefixStatus


def findings(size: int) -> Findings:
    prefix = PrefixStatus(name="bench", tokens=size, tokens_warm=size, source="prefilled", seconds=1)

    def answer(first: float) -> Answer:
        return Answer(first, first + 1, "Paris", size, size)

    comeback = Comeback(prefix, answer(0.3), answer(0.3))
    return Findings(size, "stoker", [Trial(answer(size / 100), (answer(0.2),), answer(0.25), prefix, comeback)])


def test_each_kind_of_request_has_a_point_for_each_size() -> None:
    """Cold, first warm, warm and restored, from the shortest prompt to the longest."""
    found = curves([findings(2000), findings(500)])

    assert list(found) == ["cold", "first warm", "warm", "restored"]
    assert [(at, series.median) for at, series in found["cold"]] == [(500, 5.0), (2000, 20.0)]
    assert [series.median for _, series in found["restored"]] == [0.3, 0.3]


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_picture_is_written(tmp_path: Path, ending: str) -> None:
    """In the format that the file's ending says, into a folder that is made."""
    path = tmp_path / "images" / f"warmth.{ending}"
    draw([findings(500), findings(2000)], path, "a machine")

    assert path.read_bytes()[:8] in {b"<?xml ve", b"\x89PNG\r\n\x1a\n"}
