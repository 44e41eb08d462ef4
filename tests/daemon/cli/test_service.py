"""`stoker install`, `uninstall` and `start`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from stoker.daemon.cli import service
from stoker.daemon.cli.outcome import Failure
from stoker.launchd.job import Job, ManagerError, Plan, Standing
from tests.fakes.command_line import Run, Serve
from tests.fakes.fake_steward import FAILED, FakeSteward


class FakeManager:
    """A service manager that notes what it is told; its daemon runs in a thread of the test, heard once started."""

    name = "fake"

    def __init__(self) -> None:
        self.started = False
        self.job: Job | None = None
        self.refusal: ManagerError | None = None
        self.calls: list[str] = []

    def plan(self, job: Job) -> Plan:
        """See `ServiceManager`."""
        self.job = job
        return Plan(Path("/units/stoker"), "[Service]\n", (("managerctl", "start", "stoker"),))

    def install(self, job: Job) -> None:
        """See `ServiceManager`."""
        self.job = job
        self._act("install")
        self.started = True

    def uninstall(self) -> bool:
        """See `ServiceManager`."""
        self._act("uninstall")
        return self.job is not None

    def start(self) -> None:
        """See `ServiceManager`."""
        self._act("start")
        self.started = True

    def stop(self) -> None:
        """See `ServiceManager`."""
        self._act("stop")

    def standing(self) -> Standing:
        """See `ServiceManager`."""
        return Standing(installed=self.job is not None, loaded=True, pid=os.getpid(), words="running")

    def _act(self, what: str) -> None:
        self.calls.append(what)
        if self.refusal:
            raise self.refusal


@pytest.fixture
def steward() -> FakeSteward:
    """What the installed daemon is."""
    return FakeSteward()


@pytest.fixture
def fake(steward: FakeSteward, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeManager:
    """This platform's manager."""
    manager = FakeManager()
    running = service._running

    async def heard(socket: Path) -> int | None:
        return await running(socket) if manager.started else None

    monkeypatch.setattr(service, "_running", heard)
    monkeypatch.setattr(service, "manager", lambda: manager)
    monkeypatch.setattr(service, "program", lambda: Path("/opt/bin/stoker"))
    for name in ("STATE", "LOG", "CACHE", "RUNTIME"):
        monkeypatch.setenv(f"STOKER_{name}_DIR", str(tmp_path / name.lower()))
    serve(steward)
    return manager


def test_dry_run_changes_nothing(stoker: Run, fake: FakeManager) -> None:
    """A dry run shows the file and the commands, and does none of it."""
    outcome = stoker("install", "--dry-run")

    assert (outcome.code, fake.calls) == (0, [])
    assert outcome.out == "# /units/stoker\n[Service]\n\n# then\nmanagerctl start stoker\n"


def test_what_the_service_is(stoker: Run, fake: FakeManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Flags become arguments that hold from any folder, and Stoker's variables are taken along; secrets are not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "c.toml").write_text("drain_timeout_sec = 20\nstop_grace_sec = 3")
    monkeypatch.setenv("WARMUP_TIMEOUT_SEC", "90")
    monkeypatch.setenv("UNRELATED", "x")
    outcome = stoker("install", "--dry-run", "--model", "model", "--config", "c.toml", "--port", 8080)

    assert outcome.code == 0, outcome.err
    assert fake.job is not None
    model, config = str(tmp_path / "model"), str(tmp_path / "c.toml")
    assert fake.job.arguments == ("run", "--config", config, "--model", model, "--port", "8080")
    assert fake.job.environment["WARMUP_TIMEOUT_SEC"] == "90"
    assert "UNRELATED" not in fake.job.environment
    assert fake.job.environment["HOME"]
    assert fake.job.stop_seconds == 23


@pytest.mark.parametrize("name", sorted(service.SECRET))
def test_secrets_stay_out(name: str, fake: FakeManager) -> None:
    """A key in the environment is not written into a file that others can read."""
    from stoker.daemon.settings import Settings  # noqa: PLC0415 - its defaults are the test's environment

    job = service.job_of(Settings(), ("run",), {name: "secret", "HOME": "/home/someone"})

    assert job.environment == {"HOME": "/home/someone"}


def test_wrong_configuration_is_not_installed(stoker: Run, fake: FakeManager) -> None:
    """A mistake shows before anything is written."""
    outcome = stoker("install", "--port", 99999)

    assert (outcome.code, fake.calls) == (78, [])
    assert "port = 99999" in outcome.err


def test_install_waits_until_ready(stoker: Run, fake: FakeManager) -> None:
    """An install returns when the daemon is ready, and says how warm."""
    outcome = stoker("install")

    assert outcome.code == 0
    assert outcome.out.splitlines()[0] == "installed as a fake service: running"
    assert outcome.out.splitlines()[1].startswith("ready (generation 1), warm")


def test_install_of_a_model_that_fails(stoker: Run, fake: FakeManager, steward: FakeSteward) -> None:
    """Installed all the same; that it failed, and why, is told."""
    steward.board.publish(FAILED)
    outcome = stoker("install")

    assert outcome.code == 2
    assert "failed: " in outcome.out


def test_manager_that_refuses(stoker: Run, fake: FakeManager) -> None:
    """What the manager said is one line."""
    fake.refusal = ManagerError("launchctl bootstrap failed with 5; do this")
    outcome = stoker("install")

    assert (outcome.code, outcome.err) == (2, "stoker: launchctl bootstrap failed with 5; do this\n")


def test_daemon_that_does_not_answer(
    stoker: Run, fake: FakeManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The proof of an install is the daemon's own answer; without it, the manager's words are told."""
    monkeypatch.setenv("STOKER_SOCKET", str(tmp_path / "nobody.sock"))
    monkeypatch.setattr(service, "SOCKET_PATIENCE", 0.01)
    outcome = stoker("install")

    assert outcome.code == 2
    assert "no daemon answers on" in outcome.err
    assert "(running); look at `stoker logs`" in outcome.err


def test_service_that_failed_is_not_waited_for(
    stoker: Run, fake: FakeManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the manager has it down, and keeps it so, its words are told at once and not when patience is over."""
    monkeypatch.setenv("STOKER_SOCKET", str(tmp_path / "nobody.sock"))
    monkeypatch.setattr(service, "SOCKET_PATIENCE", 3600)
    monkeypatch.setattr(service, "SOCKET_POLL", 0.001)
    looks = iter([False, True, None, *[False] * 12])  # down for a moment, before it begins, is no end

    def standing() -> Standing:
        return Standing(installed=True, loaded=next(looks), words="failed, exit-code")

    monkeypatch.setattr(fake, "standing", standing)
    outcome = stoker("start")

    assert outcome.code == 2
    assert "(failed, exit-code)" in outcome.err
    assert len(list(looks)) == 1, "ten looks in a row, and one for the words"


def test_installed_again_it_is_the_new_daemon_that_counts(
    stoker: Run, fake: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former daemon answers while it stops; the proof of an install is that another one does."""
    monkeypatch.setattr(service, "SOCKET_POLL", 0.001)
    pids = iter([7, 7, 7, None, 8])

    async def running(_socket: Path) -> int | None:
        return next(pids)

    monkeypatch.setattr(service, "_running", running)
    monkeypatch.setattr(fake, "standing", lambda: Standing(installed=True, loaded=True, pid=7, words="stopping"))

    assert stoker("install", "--no-wait").code == 0
    assert list(pids) == []


def test_beside_a_daemon_in_a_terminal(stoker: Run, fake: FakeManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is no service is not fought with: the user is told to stop it."""
    fake.started = True
    monkeypatch.setattr(fake, "standing", lambda: Standing(installed=False, loaded=False))
    outcome = stoker("install")

    assert (outcome.code, fake.calls) == (2, [])
    assert f"a daemon that is no service runs already (pid {os.getpid()}); stop it first" in outcome.err


def test_start(stoker: Run, fake: FakeManager) -> None:
    """Start waits until ready, or not."""
    assert stoker("start").out.startswith("ready (generation 1), warm")
    assert stoker("start", "--no-wait").out == "started\n"


def test_uninstall(stoker: Run, fake: FakeManager, tmp_path: Path) -> None:
    """The service and its files go, the models stay; what is kept is named."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "daemon.log").touch()
    (tmp_path / "cache" / "SmolLM2-135M-Instruct-f32").mkdir(parents=True)
    assert stoker("install").code == 0
    outcome = stoker("uninstall")

    assert outcome.out == f"uninstalled\nkept: {tmp_path / 'cache'}\n"
    assert not (tmp_path / "log").exists()
    assert stoker("uninstall", "--purge").code == 0
    assert not (tmp_path / "cache").exists()


def test_uninstall_of_nothing(stoker: Run, fake: FakeManager) -> None:
    """That there was nothing is said, and is no error."""
    outcome = stoker("uninstall")

    assert (outcome.code, outcome.out) == (0, "Stoker was not installed as a service; nothing to uninstall\n")


def test_program_is_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The service runs the `stoker` beside this Python; where there is none, the error says how to get it."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(Failure, match="install Stoker with pip into this environment"):
        service.program()
    (tmp_path / "stoker").touch(0o755)

    assert service.program() == tmp_path / "stoker"
