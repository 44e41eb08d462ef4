"""Installed as a service: the whole program in the hands of a fake launchd, and of a small systemd."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import psutil
import pytest

from stoker.daemon.cli import main, service
from stoker.ipc.control import ClientError, connect
from stoker.ipc.control_messages import StatusReport
from tests.fakes.notify_ear import ear
from tests.fakes.running_daemon import DEADLINE, RunningDaemon, is_alive
from tests.launchd.conftest import Mac

pytestmark = [pytest.mark.slow]

Stoker = Callable[..., int]


@pytest.fixture
def mac() -> Iterator[Mac]:
    """A Mac with somebody logged in."""
    home = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
    mac = Mac(home)
    mac.behaves()
    try:
        yield mac
    finally:
        mac.close()
        shutil.rmtree(home)


@pytest.fixture
def stoker(mac: Mac, monkeypatch: pytest.MonkeyPatch) -> Stoker:
    """The command line of a user of that Mac."""
    for name in ("RUNTIME", "STATE", "CACHE", "LOG"):
        monkeypatch.setenv(f"STOKER_{name}_DIR", str(mac.home / name.lower()))
    monkeypatch.setenv("HOME", str(mac.home))
    monkeypatch.setenv("STOKER_PORT", "0")
    monkeypatch.setattr(service, "manager", mac.agent)

    def stoker(*arguments: object) -> int:
        return main([str(argument) for argument in arguments])

    return stoker


def look(mac: Mac, besides: int | None = None) -> StatusReport:
    """The status of the installed daemon once it is ready, or that of another process than `besides`."""

    async def ask() -> StatusReport:
        with anyio.fail_after(DEADLINE):
            while True:
                try:
                    async with connect(mac.home / "runtime" / "control.sock", DEADLINE) as client:
                        await client.wait_ready(DEADLINE)
                        status = await client.status()
                except ClientError:
                    await anyio.sleep(0.02)  # another process's start can only be polled
                    continue
                if status.pid != besides:
                    return status

    return anyio.run(ask)


def test_a_service_of_launchd(mac: Mac, stoker: Stoker, tiny_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Installed, crashed, back and warm, installed again over itself, restarted, uninstalled: and nothing is left."""
    assert stoker("install", "--model", tiny_llama) == 0
    first = look(mac)
    os.kill(first.pid, signal.SIGKILL)
    second = look(mac, besides=first.pid)
    assert stoker("install", "--model", tiny_llama) == 0
    third = look(mac, besides=second.pid)
    assert stoker("restart") == 0
    assert stoker("stop") == 0
    assert stoker("start") == 0
    fourth = look(mac, besides=third.pid)
    assert stoker("uninstall", "--purge") == 0

    assert "installed as a launchd service: running" in capsys.readouterr().out
    reports = (first, second, third, fourth)
    assert [report.warm for report in reports] == [True] * 4
    assert fourth.prefixes[0].source == "restored", "what an earlier one computed is on disk"
    assert not [report.pid for report in reports if is_alive(report.pid)]
    assert not [report.worker for report in reports if report.worker and is_alive(report.worker.pid)]
    assert mac.agent().standing().loaded is False
    assert {path.name for path in mac.home.iterdir()} <= {"launchd.sock", "knobs.json", "Library"}
    assert list((mac.home / "Library" / "LaunchAgents").iterdir()) == []


def test_a_model_that_can_not_be_loaded_is_no_loop(mac: Mac, stoker: Stoker, tmp_path: Path) -> None:
    """A daemon that can't serve stays and says why; one that exits would be started again and again."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "llama"}')
    assert stoker("install", "--model", broken) == 2
    pid = mac.pid()

    assert psutil.Process(pid).is_running()
    assert "runs = 1" in mac.launchctl.call("print", "gui/501/stoker.daemon").text


@pytest.mark.anyio
async def test_under_systemd(tiny_llama: Path) -> None:
    """Systemd hears of the start, gets READY=1 when `ready` is true and not before, and hears of the stop."""
    with ear() as systemd:
        async with RunningDaemon(tiny_llama, systemd.environ) as daemon:
            heard = await systemd.until(b"WATCHDOG=1")
            environ_of_worker = psutil.Process(await daemon.worker_pid()).environ()
            daemon.process.send_signal(signal.SIGTERM)
            ending = await systemd.until(b"STOPPING=1")

    before = heard[: heard.index(next(word for word in heard if b"READY=1" in word))]
    assert any(word.startswith(b"EXTEND_TIMEOUT_USEC=") for word in before)
    assert any(b"STATUS=not ready: " in word for word in before)
    assert b"STOPPING=1" in ending[-1]
    assert "NOTIFY_SOCKET" not in environ_of_worker
