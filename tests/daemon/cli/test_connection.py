from __future__ import annotations

import os
from pathlib import Path

import pytest

from stoker.daemon.cli.connection import ask, control_socket
from stoker.ipc.control import ControlClient
from tests.fakes.command_line import Serve
from tests.fakes.fake_steward import FakeSteward


def test_the_socket_is_the_flags_else_the_environments_else_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find the daemon as `run` places it."""
    config = Path(os.environ["STOKER_CONFIG"])
    assert control_socket(None) == Path(os.environ["STOKER_RUNTIME_DIR"]) / "control.sock"

    config.write_text('socket = "from-file"')
    assert control_socket(None) == config.parent / "from-file"

    monkeypatch.setenv("STOKER_SOCKET", "/from/environment")
    assert control_socket(None) == Path("/from/environment")
    assert control_socket(Path("/from/flag")) == Path("/from/flag")


def test_a_question_is_asked_and_the_connection_closed(serve: Serve) -> None:
    """`ask` returns the answer, and leaves nothing open."""
    serve(FakeSteward())

    assert ask(None, ControlClient.ready).ready
