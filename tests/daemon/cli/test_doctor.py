"""`stoker doctor`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from stoker.daemon.checkup import engine
from stoker.daemon.cli import service
from tests.daemon.cli.test_service import FakeManager
from tests.fakes.command_line import Run, Serve
from tests.fakes.fake_steward import FakeSteward

SEEN = '{"engine": {"mlx": "1", "mlx_lm": "2", "device": "cpu"}, "absent": true}'


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine where nothing is wrong."""
    monkeypatch.setattr(engine, "COMMAND", (sys.executable, "-c", f"print('{SEEN}')"))
    monkeypatch.setattr(service, "manager", FakeManager)
    monkeypatch.setenv("STOKER_PORT", "0")
    for name in ("STATE", "LOG", "CACHE"):
        monkeypatch.setenv(f"STOKER_{name}_DIR", str(tmp_path / name.lower()))


def test_healthy(stoker: Run, healthy: None, serve: Serve) -> None:
    """Exit 0, a line for each thing, the running daemon among them."""
    serve(FakeSteward())
    outcome = stoker("doctor")

    assert outcome.code == 0, outcome.out
    assert "ok     daemon: ready, warm" in outcome.out
    assert "WRONG" not in outcome.out


def test_something_is_wrong(stoker: Run, healthy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1, and the remedy on a line below."""
    monkeypatch.setenv("STOKER_HOST", "192.0.2.1")
    monkeypatch.setenv("STOKER_PORT", "11500")
    outcome = stoker("doctor")

    assert outcome.code == 1
    assert "WRONG  port: 192.0.2.1:11500: " in outcome.out
    assert "\n       -> choose another `host` or `port`\n" in outcome.out


def test_json(stoker: Run, healthy: None) -> None:
    """One finding a line, for programs."""
    outcome = stoker("doctor", "--json")
    findings = [json.loads(line) for line in outcome.out.splitlines()]

    assert {finding["level"] for finding in findings} <= {"ok", "note"}
    assert {"machine", "python", "port", "disk", "mlx", "model", "service"} <= {each["subject"] for each in findings}


def test_warnings_of_the_configuration(stoker: Run, healthy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `stoker run` would warn of is a finding too; what it would refuse is refused here alike."""
    monkeypatch.setenv("WARMUP_TIMEOUT_SEC", "soon")
    assert "note   configuration: WARMUP_TIMEOUT_SEC='soon'" in stoker("doctor").out

    monkeypatch.setenv("STOKER_PORT", "many")
    assert stoker("doctor").code == 78
