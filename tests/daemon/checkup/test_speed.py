"""The service's speed beside the shell's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from stoker.daemon.checkup import speed
from stoker.daemon.checkup.finding import Finding
from stoker.ipc.control import ClientError
from stoker.ipc.control_messages import Measurement


def at(bandwidth: float, flops: float, device: str = "cpu") -> Measurement:
    """In GB/s and GFLOP/s."""
    return Measurement(device=device, bandwidth=bandwidth * 1e9, flops=flops * 1e9, seconds=0.5)


def found(service: Measurement, shell: Measurement) -> Finding:
    return speed.finding(service, shell, "lift the limit")


def test_same_speed() -> None:
    """Both figures are told of a service that computes as fast as the shell, and stand in the JSON form."""
    finding = found(at(8, 60), at(10, 58))

    assert (finding.level, finding.remedy) == ("ok", None)
    assert "80% of this shell's speed (8.0 of 10.0 GB/s) and prefills at 103% (60 of 58 GFLOP/s)" in finding.text
    assert finding.figures == {
        "service_bandwidth": 8e9,
        "service_flops": 60e9,
        "shell_bandwidth": 10e9,
        "shell_flops": 58e9,
    }


@pytest.mark.parametrize(
    ("bandwidth", "flops", "level"),
    [(6, 60, "ok"), (5.9, 100, "note"), (10, 59, "note"), (3, 100, "note"), (2.9, 100, "wrong"), (10, 12, "wrong")],
)
def test_the_slower_figure_decides(bandwidth: float, flops: float, level: str) -> None:
    """Below six tenths in either figure it is a note with a remedy, below three tenths it is wrong."""
    finding = found(at(bandwidth, flops), at(10, 100))

    assert finding.level == level
    assert finding.remedy == (None if level == "ok" else "lift the limit")


def test_noisy_machine_accuses_nobody() -> None:
    """While other programs compute, a slow service is a note that says so, for the slowness may be theirs."""
    noisy = speed.finding(at(1, 10), at(10, 100), "lift the limit", others=0.5)
    quiet = speed.finding(at(1, 10), at(10, 100), "lift the limit", others=0.1)

    assert (noisy.level, quiet.level) == ("note", "wrong")
    assert "other programs use 50% of the processor" in noisy.text
    assert noisy.remedy == "run it again while nothing else computes; if it stays so, lift the limit"


def test_another_device_is_named() -> None:
    """A service that computes on another device than the shell says so: that is why."""
    assert "it computes on the cpu, this shell on the gpu" in found(at(10, 60), at(100, 6000, "gpu")).text


@dataclass
class Worker:
    """A process as the system sees it."""

    niceness: int
    cores: int
    gone: bool = False

    def nice(self) -> int:
        if self.gone:
            raise psutil.NoSuchProcess(1)
        return self.niceness

    def cpu_affinity(self) -> list[int]:
        return list(range(self.cores))


def test_what_limits_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where niceness or cores are worse than the shell's, the finding has them; a worker that is gone has none."""
    monkeypatch.setattr(psutil, "Process", lambda: Worker(0, 8))
    texts = [
        speed.finding(at(1, 1), at(9, 9), "", worker=worker).text
        for worker in (Worker(10, 2), Worker(0, 8), Worker(10, 2, gone=True))
    ]

    assert texts[0].endswith("; its niceness is 10; it may use 2 of this shell's 8 cores")
    assert not [text for text in texts[1:] if "niceness" in text or "cores" in text]


def taking_turns(*turns: Measurement | Exception) -> tuple[Callable[[], Measurement], list[str]]:
    """A service that answers so, and a place for who measured."""
    answers: Iterator[Measurement | Exception] = iter(turns)
    order: list[str] = []

    def service() -> Measurement:
        order.append("service")
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return service, order


def test_best_of_both_in_turn() -> None:
    """Service and shell measure in turn, never at once, and the best of each figure counts."""
    service, order = taking_turns(at(8, 50), at(7, 60), at(9, 40))
    shells = iter((at(1, 70), at(2, 60), at(3, 50)))

    def shell() -> Measurement:
        order.append("shell")
        return next(shells)

    assert speed.compared(service, shell) == (at(9, 60), at(3, 70))
    assert order == ["service", "shell"] * speed.ROUNDS


def test_request_that_comes_ends_the_comparison() -> None:
    """What was measured before the service got something to do is enough; without any, there is its refusal."""
    service, order = taking_turns(at(8, 50), ClientError("busy"))
    assert speed.compared(service, lambda: at(9, 60)) == (at(8, 50), at(9, 60))
    assert order == ["service"] * 2

    with pytest.raises(ClientError, match="busy"):
        speed.compared(taking_turns(ClientError("busy"))[0], lambda: at(9, 60))


def test_no_daemon() -> None:
    """Without one nothing is measured, and a note says why."""
    (finding,) = speed.findings(None, Path("/nowhere"), None)

    assert (finding.level, "no daemon runs" in finding.text) == ("note", True)


@pytest.mark.slow
def test_real_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of its own measures, in a worker's environment, and tells on one line what the daemon reads."""
    measured = speed.probed()
    assert measured.bandwidth > 1e6
    assert measured.flops > 1e6

    monkeypatch.setattr(speed, "COMMAND", (sys.executable, "-c", "print(1)"))
    with pytest.raises(Exception, match="Expected"):
        speed.probed()
