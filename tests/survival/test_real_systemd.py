"""The unit in the hands of a real systemd, where there may be one: `make storm`, as root."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from stoker.ipc.control import connect
from stoker.ipc.control_messages import StatusReport
from tests.fakes.running_daemon import DEADLINE
from tests.survival.real_systemd import RealSystemd, Unavailable, real_systemd

pytestmark = [pytest.mark.storm, pytest.mark.slow]

READY = {"ActiveState": "active", "SubState": "running", "Result": "success"}


@pytest.fixture
def systemd() -> Iterator[RealSystemd]:
    """The user's, which knows nothing of Stoker yet."""
    try:
        with real_systemd() as systemd:
            yield systemd
            assert systemd.stoker("uninstall", "--purge").returncode == 0
            assert systemd.processes() == []
            assert systemd.systemctl("cat", "stoker").returncode != 0
            left = {path.name for path in systemd.home.rglob("*") if "stoker" in path.name.lower()}
            assert left <= {"stoker.service.d"}, "that is `systemctl edit`'s, and the user's own"
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def installed(systemd: RealSystemd, tiny_llama: Path) -> RealSystemd:
    """The same, with the service installed and ready."""
    done = systemd.stoker("install", "--model", tiny_llama)
    assert done.returncode == 0, done.stderr
    return systemd


def status(systemd: RealSystemd) -> StatusReport:
    """The daemon's own word, over its control socket, when what is warm is on disk."""

    async def ask() -> StatusReport:
        with anyio.fail_after(DEADLINE):
            async with connect(systemd.home / "runtime" / "control.sock", DEADLINE) as client:
                await client.wait_ready(DEADLINE)
                while not ((report := await client.status()).store and report.store.entries):  # noqa: ASYNC110
                    await anyio.sleep(0.05)  # a save is no event
                return report

    return anyio.run(ask)


def test_installed_is_ready(installed: RealSystemd, tiny_llama: Path) -> None:
    """`install` returns when systemd has the unit as active, by our READY=1; a second one has the same end."""
    first = installed.until(**READY)
    again = installed.stoker("install", "--model", tiny_llama)
    second = installed.until(**READY)

    assert first["StatusText"].startswith("ready")
    assert again.returncode == 0, again.stderr
    assert "\nready (generation 1), warm" in again.stdout
    assert second["MainPID"] != first["MainPID"]
    assert second["UnitFileState"] == "enabled"
    assert status(installed).warm


def test_installed_twenty_times(installed: RealSystemd, tiny_llama: Path) -> None:
    """Installed again and again, while requests run, it ends as after the first time: one daemon, ready and warm."""
    unit = installed.systemctl("cat", "stoker").stdout
    asking = installed.start("sh", "-c", "until [ -e ~/enough ]; do stoker chat --max-tokens 8 Hello; done")
    outcomes = [installed.stoker("install", "--model", tiny_llama).returncode for _ in range(20)]
    still_asking = asking.poll() is None
    (installed.home / "enough").touch()
    asking.wait(DEADLINE)

    assert outcomes == [0] * 20
    assert still_asking
    assert installed.systemctl("cat", "stoker").stdout == unit
    assert installed.until(**READY)["NRestarts"] == "0"
    assert status(installed).warm
    assert len(installed.processes()) == 2, "a daemon and its worker"


def test_killed_daemon_comes_back_warm(installed: RealSystemd) -> None:
    """A daemon that was killed is started again and warm from disk, and nothing of the first one is left."""
    before = installed.until(**READY)
    assert status(installed).prefixes[0].source == "prefilled"
    installed.run("kill", "-9", before["MainPID"])
    after = installed.until(**READY, NRestarts="1")
    report = status(installed)

    assert after["MainPID"] != before["MainPID"]
    assert report.warm
    assert report.prefixes[0].source == "restored"
    assert len(installed.processes()) == 2, "a daemon and its worker"


def test_stopped_stays_stopped(installed: RealSystemd) -> None:
    """`stoker stop` and systemd's own stop end daemon and worker for good, as no failure; `start` has them back."""
    for command in (["stoker", "stop"], ["systemctl", "--user", "stop", "stoker"]):
        assert installed.run(*command).returncode == 0
        assert installed.until(ActiveState="inactive", Result="success")["NRestarts"] == "0"
        assert installed.processes() == []
        assert installed.stoker("start").returncode == 0
        installed.until(**READY)


def test_mistake_in_the_configuration_is_no_loop(systemd: RealSystemd, tiny_llama: Path) -> None:
    """A reload of a bad file is refused in the status line; a start with it ends with 78 and is not repeated."""
    config = systemd.home / "config.toml"
    config.write_text(f'model = "{tiny_llama}"\n')
    assert systemd.stoker("install", "--config", config).returncode == 0
    config.write_text("model = 7\n")
    reloaded = systemd.systemctl("reload", "stoker")
    refused = systemd.until(**READY)
    restarted = systemd.systemctl("restart", "stoker")
    failed = systemd.until(ActiveState="failed")

    assert reloaded.returncode == 0
    assert "model" in refused["StatusText"]
    assert restarted.returncode == 1
    assert (failed["ExecMainStatus"], failed["NRestarts"]) == ("78", "0")
    assert "exit-code 78: a mistake in the configuration" in systemd.stoker("start").stderr
    config.write_text(f'model = "{tiny_llama}"\n')
    assert systemd.stoker("start").returncode == 0
    systemd.until(**READY)


def test_silent_daemon_is_replaced(installed: RealSystemd) -> None:
    """A daemon that gives no sign of life for the watchdog's time is killed, with its worker, and started again."""
    drop_in = installed.home / ".config" / "systemd" / "user" / "stoker.service.d" / "quick.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n")
    assert installed.systemctl("daemon-reload").returncode == 0
    assert installed.systemctl("restart", "stoker").returncode == 0
    before = installed.until(**READY)
    time.sleep(3)  # longer than the watchdog's time: alive and idle is no silence
    assert installed.shown()["MainPID"] == before["MainPID"]
    installed.run("kill", "-STOP", before["MainPID"])
    after = installed.until(**READY, NRestarts="1")

    assert after["MainPID"] != before["MainPID"]
    assert status(installed).warm
    assert len(installed.processes()) == 2, "a daemon and its worker"
