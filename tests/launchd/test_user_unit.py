"""Installing as a systemd user unit, against a systemctl that notes what it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.launchd.job import Job, ManagerError, Standing
from stoker.launchd.unit import NAME
from stoker.launchd.user_unit import UserUnit

JOB = Job(Path("/bin/sh"), ("run",), {}, Path("/tmp/service.log"), 35.0)


class FakeSystemctl:
    """A program in place of `systemctl --user`: it notes its arguments, and answers by its first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._calls = folder / "calls"
        self.program = folder / "systemctl"
        self.program.write_text(
            f'#!/bin/sh\necho "$@" >> {self._calls}\n[ -f {folder}/$1.out ] && cat {folder}/$1.out\n'
            f"[ -f {folder}/$1.code ] && exit $(cat {folder}/$1.code)\nexit 0\n"
        )
        self.program.chmod(0o755)

    def answers(self, verb: str, text: str, code: int = 0) -> None:
        """What a verb prints, and how it exits."""
        (self._folder / f"{verb}.out").write_text(text)
        (self._folder / f"{verb}.code").write_text(str(code))

    @property
    def calls(self) -> list[str]:
        """What it was told."""
        return self._calls.read_text().splitlines()


@pytest.fixture
def systemctl(tmp_path: Path) -> FakeSystemctl:
    """One that agrees to everything."""
    return FakeSystemctl(tmp_path)


@pytest.fixture
def service(systemctl: FakeSystemctl, tmp_path: Path) -> UserUnit:
    """The manager under test."""
    return UserUnit((str(systemctl.program),), tmp_path / "units")


def test_install(service: UserUnit, systemctl: FakeSystemctl) -> None:
    """The unit is written, enabled and started; a start limit that was reached before is forgotten."""
    service.install(JOB)

    assert "Type=notify" in service.path.read_text()
    assert systemctl.calls == [
        f"reset-failed {NAME}",
        "daemon-reload",
        f"enable {NAME}",
        f"restart --no-block {NAME}",
    ]


def test_install_where_nothing_had_failed(service: UserUnit, systemctl: FakeSystemctl) -> None:
    """That there is nothing to reset is no error."""
    systemctl.answers("reset-failed", "Unit stoker.service not loaded.", 5)
    service.install(JOB)

    assert systemctl.calls[-1] == f"restart --no-block {NAME}"


def test_plan_changes_nothing(service: UserUnit) -> None:
    """A dry run writes nothing, and names the commands."""
    plan = service.plan(JOB)

    assert not plan.path.exists()
    assert [command[1] for command in plan.commands] == ["daemon-reload", "enable", "restart"]


def test_uninstall(service: UserUnit, systemctl: FakeSystemctl) -> None:
    """Stopped, disabled, gone; a second time there is nothing to do."""
    service.install(JOB)

    assert service.uninstall() is True
    assert not service.path.exists()
    assert systemctl.calls[-2:] == [f"disable --now {NAME}", "daemon-reload"]
    assert service.uninstall() is False


def test_start_and_stop(service: UserUnit, systemctl: FakeSystemctl) -> None:
    """A start is not waited for here: the caller shows progress meanwhile."""
    service.install(JOB)
    service.start()
    service.stop()

    assert systemctl.calls[-2:] == [f"start --no-block {NAME}", f"stop {NAME}"]


@pytest.mark.parametrize("act", ["start", "stop"])
def test_not_installed(service: UserUnit, act: str) -> None:
    """Start and stop of what is not installed say how to install it."""
    with pytest.raises(ManagerError, match="run `stoker install`"):
        getattr(service, act)()


def test_no_bus(service: UserUnit, systemctl: FakeSystemctl) -> None:
    """The commonest failure, a shell without the user's session, is told with its way out."""
    systemctl.answers("daemon-reload", "Failed to connect to bus: No medium found\n", 1)
    with pytest.raises(ManagerError, match="failed with 1: the user's systemd can't be reached; log in as this user"):
        service.install(JOB)


def test_other_failure(service: UserUnit, systemctl: FakeSystemctl) -> None:
    """Any other failure is told in systemd's first line."""
    systemctl.answers("enable", "Failed to enable unit: Access denied\nmore\n", 4)
    with pytest.raises(ManagerError, match=r"failed with 4: Failed to enable unit: Access denied$"):
        service.install(JOB)


def test_no_systemd(tmp_path: Path) -> None:
    """Where there is no systemd, the error says what to do instead."""
    with pytest.raises(ManagerError, match=r"cannot run /nonexistent: No such file .*without systemd, let what"):
        UserUnit(("/nonexistent",), tmp_path).install(JOB)


@pytest.mark.parametrize(
    ("shown", "standing"),
    [
        (
            "MainPID=42\nActiveState=active\nSubState=running\nResult=success",
            Standing(installed=True, loaded=True, pid=42, words="active (running)"),
        ),
        (
            "MainPID=42\nActiveState=activating\nSubState=start\nResult=success",
            Standing(installed=True, loaded=True, pid=42, words="activating (start)"),
        ),
        (
            "MainPID=0\nActiveState=failed\nSubState=failed\nResult=start-limit-hit",
            Standing(installed=True, loaded=False, words="failed (failed), start-limit-hit"),
        ),
        (
            "MainPID=0\nActiveState=failed\nSubState=failed\nResult=exit-code\nExecMainStatus=78",
            Standing(
                installed=True,
                loaded=False,
                words="failed (failed), exit-code 78: a mistake in the configuration, which `systemctl --user status "
                "stoker` quotes",
            ),
        ),
        ("Failed to connect to bus", Standing(installed=True, loaded=None, words="Failed to connect to bus")),
    ],
    ids=["running", "starting", "failed", "misconfigured", "no bus"],
)
def test_standing(service: UserUnit, systemctl: FakeSystemctl, shown: str, standing: Standing) -> None:
    """How systemd has it; what it does not say is unknown, not stopped."""
    service.install(JOB)
    systemctl.answers("show", shown)

    assert service.standing() == standing


def test_standing_without_a_unit(service: UserUnit) -> None:
    """Without its file it is not installed, and systemd is not even asked."""
    assert service.standing().installed is False
