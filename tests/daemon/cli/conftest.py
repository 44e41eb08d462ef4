"""A daemon to ask, in a thread or as a process, and the command line to ask it with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stoker.daemon.cli import main
from tests.fakes.command_line import Outcome, Run, Serve
from tests.fakes.fake_steward import BackgroundDaemon, FakeSteward, background, short_directory

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def stoker(capsys: pytest.CaptureFixture[str]) -> Run:
    """`stoker(*arguments)`: run a command in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """`serve(steward)`: a daemon in another thread, found by its environment variable."""
    with ExitStack() as stack:

        def begin(steward: FakeSteward) -> BackgroundDaemon:
            daemon = stack.enter_context(background(steward))
            monkeypatch.setenv("STOKER_SOCKET", str(daemon.socket))
            return daemon

        yield begin


@pytest.fixture
def daemon_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A daemon that is a process, found by its environment variable."""
    with short_directory() as folder:
        socket = folder / "control.sock"
        monkeypatch.setenv("STOKER_SOCKET", str(socket))
        command = [sys.executable, "-m", "tests.fakes.fake_steward", str(socket)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            yield process
            process.kill()
