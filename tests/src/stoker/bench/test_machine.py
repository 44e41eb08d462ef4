"""On what is measured."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from stoker.bench import machine
from stoker.bench.report import Json


def look(monkeypatch: pytest.MonkeyPatch, busy: float, openblas: Path | None = None) -> Json:
    monkeypatch.setattr(psutil, "cpu_percent", lambda **_: busy)
    return machine.machine(openblas)


def test_a_busy_machine_is_not_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was busy before the start says so, for the figures are then too long."""
    assert look(monkeypatch, 5)["quiet"]
    assert not look(monkeypatch, 50)["quiet"]


@pytest.mark.skipif("sys.platform != 'linux'")
def test_the_blas_is_that_of_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its file's name; where there is none, that is said with its price."""
    assert look(monkeypatch, 0, Path("/usr/lib/libopenblas.so.0"))["openblas"].startswith("libopenblas.so.0, ")
    assert "9 times slower" in look(monkeypatch, 0)["openblas"]


def test_a_package_that_is_not_there_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source tree that was never installed can be measured all the same."""
    monkeypatch.setattr(machine, "PACKAGES", ("anyio", "no-such-package"))

    assert set(machine.versions()) == {"python", "anyio"}
