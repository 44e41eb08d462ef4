"""`stoker doctor`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from stoker.daemon.checkup import engine, speed
from stoker.daemon.cli import service
from stoker.daemon.steward import Refusal
from stoker.ipc.control_messages import Measurement
from stoker.ipc.errors import ErrorCode
from stoker.launchd.job import Standing
from tests.daemon.cli.test_service import FakeManager
from tests.fakes.command_line import Run, Serve
from tests.fakes.fake_steward import FakeSteward

MEASURED = '{"device": "cpu", "bandwidth": 1e10, "flops": 6e10, "seconds": 0.5}'
SEEN = '{"engine": {"mlx": "1", "mlx_lm": "2", "device": "cpu"}, "absent": true}'


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine where nothing is wrong."""
    monkeypatch.setattr(engine, "COMMAND", (sys.executable, "-c", f"print('{SEEN}')"))
    monkeypatch.setattr(speed, "COMMAND", (sys.executable, "-c", f"print('{MEASURED}')"))
    monkeypatch.setattr(speed, "used_by_others", lambda: 0.0)
    monkeypatch.setattr(service, "manager", FakeManager)
    monkeypatch.setenv("STOKER_PORT", "0")
    for name in ("STATE", "LOG", "CACHE"):
        monkeypatch.setenv(f"STOKER_{name}_DIR", str(tmp_path / name.lower()))


def test_healthy(stoker: Run, healthy: None, serve: Serve) -> None:
    """Exit 0, a line for each thing, the running daemon among them."""
    serve(FakeSteward())
    outcome = stoker("doctor")

    assert outcome.code == 0, outcome.out
    assert "ok     daemon: ready, warm; 812 prompt, 43.2 generation tokens/s" in outcome.out
    assert "ok     speed: the service decodes at 80% of this shell's speed" in outcome.out
    assert "WRONG" not in outcome.out


class Managed(FakeManager):
    """A manager that runs the fake daemon."""

    name = "systemd"

    def standing(self) -> Standing:
        """See `ServiceManager`."""
        return Standing(installed=True, loaded=True, pid=4711, words="active (running)")


@pytest.mark.parametrize(("manager", "remedy"), [(Managed, "CPUQuotaPerSecUSec"), (FakeManager, "ps -o ni -p 4711")])
def test_throttled_service(
    stoker: Run,
    healthy: None,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    *,
    manager: type[FakeManager],
    remedy: str,
) -> None:
    """A service that gets an eighth of the shell's speed is wrong, and the remedy is that of whoever runs it."""
    monkeypatch.setattr(service, "manager", manager)
    serve(FakeSteward(measured=Measurement(device="cpu", bandwidth=1.25e9, flops=3e10, seconds=0.5)))
    outcome = stoker("doctor")

    assert outcome.code == 1
    assert "WRONG  speed: the service decodes at 12% of this shell's speed (1.2 of 10.0 GB/s)" in outcome.out
    assert remedy in outcome.out.split("WRONG  speed")[1]


class Busy(FakeSteward):
    """A daemon whose worker has something to do."""

    async def measure(self) -> Measurement:
        """See `Steward`."""
        raise Refusal("the engine has something to compute", "try again later", ErrorCode.BUSY)


@pytest.mark.parametrize("steward", [Busy(), None], ids=["busy", "no daemon"])
def test_what_can_not_be_compared_fails_nothing(
    stoker: Run, healthy: None, serve: Serve, steward: FakeSteward | None
) -> None:
    """A service that is busy, or not there, is a note that says so, and no failure."""
    if steward is not None:
        serve(steward)
    outcome = stoker("doctor")

    assert outcome.code == 0, outcome.out
    assert f"note   speed: {'the service can' if steward else 'no daemon runs'}" in outcome.out


def test_shell_that_can_not_measure(
    stoker: Run, healthy: None, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An mlx that can't be imported here is the finding of the engine, and of the speed only a note."""
    monkeypatch.setattr(speed, "COMMAND", (sys.executable, "-c", "import sys; sys.exit(1)"))
    serve(FakeSteward())

    assert "note   speed: this shell can't be compared with the service: " in stoker("doctor").out


def test_figures_in_json(stoker: Run, healthy: None, serve: Serve) -> None:
    """For programs, the finding has what both measured, in bytes and operations per second."""
    serve(FakeSteward())
    findings = {each["subject"]: each for each in map(json.loads, stoker("doctor", "--json").out.splitlines())}

    assert findings["speed"]["figures"] == {
        "service_bandwidth": 8e9,
        "service_flops": 6e10,
        "shell_bandwidth": 1e10,
        "shell_flops": 6e10,
    }


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
