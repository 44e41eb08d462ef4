"""The measurement of a process that is not the worker."""

from __future__ import annotations

import pytest
from msgspec import json

from stoker.ipc.messages import Speed
from stoker.worker import measure
from stoker.worker.mlx_engine import speed


def test_prints_one_object(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The program prints what was measured as JSON, on one line, and nothing else."""
    fast = Speed(device="cpu", bandwidth=8e9, flops=6e10, seconds=0.5)
    monkeypatch.setattr(speed, "measured", lambda: fast)
    measure.main()
    out = capsys.readouterr().out

    assert out.count("\n") == 1
    assert json.decode(out, type=Speed) == fast
