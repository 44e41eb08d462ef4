from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from stoker.daemon import run as daemon_run
from stoker.daemon.cli.run import DESCRIPTORS, raise_descriptor_limit
from stoker.daemon.runtime_dir import AlreadyRunning
from stoker.daemon.settings import Settings
from tests.fakes.command_line import Run


class FakeDaemon:
    """Takes the place of the daemon's main function."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.warnings: tuple[str, ...] = ()
        self.code = 0
        self.fault: Exception | None = None
        self.reread: Any = None

    def __call__(
        self, settings: Settings, warnings: tuple[str, ...], *beside: Any, reread: Any, on_reload: Any
    ) -> int:
        if self.fault:
            raise self.fault
        self.settings, self.warnings, self.reread = settings, warnings, reread
        return self.code


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    fake = FakeDaemon()
    monkeypatch.setattr(daemon_run, "run_daemon", fake)
    return fake


def test_flags_become_settings(stoker: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Every flag of `run` reaches the daemon, over environment and file."""
    config = tmp_path / "c.toml"
    config.write_text("port = 1\nmax_batch = 3")
    flags = ("--host", "::1", "--port", 0, "--socket", "/tmp/s", "--log-level", "debug", "--model", "a/b")
    outcome = stoker("run", "--config", config, *flags)

    assert (outcome.code, outcome.err) == (0, "")
    assert daemon.settings is not None
    assert (daemon.settings.host, daemon.settings.port, daemon.settings.max_batch) == ("::1", 0, 3)
    assert (daemon.settings.control_socket, daemon.settings.log_level) == (Path("/tmp/s"), "debug")
    assert daemon.settings.model == "a/b"
    config.write_text("port = 1\nmax_batch = 7")
    assert (daemon.reread()[0].max_batch, daemon.reread()[0].host) == (7, "::1")


def test_the_daemons_exit_code_is_ours(stoker: Run, daemon: FakeDaemon) -> None:
    """What the daemon ends with is the command's exit code."""
    daemon.code = 78

    assert stoker("run").code == 78


def test_a_runtime_directory_in_use_is_one_line(stoker: Run, daemon: FakeDaemon) -> None:
    """A second daemon says that there is one, without a traceback, exit code 78."""
    daemon.fault = AlreadyRunning("another stoker is running")
    outcome = stoker("run")

    assert (outcome.code, outcome.err) == (78, "stoker: another stoker is running\n")


def test_warnings_are_shown_and_passed_on(stoker: Run, daemon: FakeDaemon) -> None:
    """What the configuration warns of is on stderr, and known to the daemon for its status."""
    outcome = stoker("run", "--host", "0.0.0.0")

    assert outcome.err.startswith("stoker: warning: host = '0.0.0.0'")
    assert len(daemon.warnings) == 1


def test_the_descriptor_limit_is_raised_as_far_as_allowed() -> None:
    """Launchd's 256 open files become enough for thousands of clients, and never fewer than before."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        raise_descriptor_limit()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == (DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard))
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
