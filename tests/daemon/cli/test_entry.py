from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stoker import __version__
from stoker.daemon.cli.entry import app
from tests.fakes.command_line import Run, Serve, stoker_process
from tests.fakes.fake_steward import FakeSteward

COMMANDS = (
    "run",
    "install",
    "uninstall",
    "start",
    "ready",
    "status",
    "rewarm",
    "restart",
    "stop",
    "chat",
    "doctor",
    "bench",
    "logs",
)
GROUPS = {"warm": ("list", "pin", "forget", "clear"), "cache": ("list", "verify", "clear")}
NEED_A_DAEMON = (
    ("ready",),
    ("status",),
    ("rewarm",),
    ("restart",),
    ("stop",),
    ("chat", "hi"),
    ("warm", "list"),
    ("warm", "pin", "x"),
    ("warm", "forget", "x"),
    ("warm", "clear", "--yes"),
)
HEAVY = ("mlx", "numpy", "transformers", "aiohttp", "rich", "structlog", "psutil", "plistlib")


def test_the_version_is_printed(stoker: Run) -> None:
    """`--version` says which version it is, and nothing else."""
    outcome = stoker("--version")

    assert (outcome.code, outcome.out) == (0, f"stoker {__version__}\n")


def test_all_commands_exist() -> None:
    """The commands of this issue are there, under their names."""
    assert tuple(command.callback.__name__ for command in app.registered_commands if command.callback) == COMMANDS
    assert {
        group.typer_instance.info.name: tuple(
            command.name or getattr(command.callback, "__name__", "")
            for command in group.typer_instance.registered_commands
        )
        for group in app.registered_groups
        if group.typer_instance
    } == GROUPS


@pytest.mark.parametrize("command", [*COMMANDS, *(f"{group} {one}" for group in GROUPS for one in GROUPS[group])])
def test_every_command_has_help_with_examples(stoker: Run, command: str) -> None:
    """`--help` explains the command and shows how it is used."""
    outcome = stoker(*command.split(), "--help")

    assert outcome.code == 0
    assert "Examples:" in outcome.out
    assert f"stoker {command}" in outcome.out.split("Examples:")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nonsense",), "No such command 'nonsense'; see `stoker --help`"),
        (("ready", "--nonsense"), "No such option: --nonsense; see `stoker ready --help`"),
        (("ready", "--timeout", "soon"), "--timeout"),
        (("chat", "--temperature", "9"), "--temperature"),
        (("warm", "pin"), "see `stoker warm pin --help`"),
        (("warm", "up"), "see `stoker warm --help`"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(stoker: Run, arguments: tuple[str, ...], words: str) -> None:
    """A typing error is answered by what is wrong and where help is, without a traceback or a box."""
    outcome = stoker(*arguments)

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("stoker: ")
    assert words in outcome.err


def test_without_a_command_the_help_is_shown(stoker: Run) -> None:
    """`stoker` alone lists the commands, and is wrong usage."""
    outcome = stoker()

    assert outcome.code == 2
    assert all(command in outcome.out for command in (*COMMANDS, *GROUPS))
    assert outcome.err == ""


@pytest.mark.parametrize("arguments", NEED_A_DAEMON)
def test_without_a_daemon_exit_code_3_and_how_to_start_one(stoker: Run, arguments: tuple[str, ...]) -> None:
    """Every command that needs the daemon says in one line that there is none."""
    outcome = stoker(*arguments)

    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.count("\n") == 1
    assert "stoker run" in outcome.err


def test_a_wrong_configuration_is_exit_code_78(stoker: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the configuration is one line that names key, value, source and what is allowed."""
    outcome = stoker("run", "--port", 70000)
    assert (outcome.code, outcome.out) == (78, "")
    assert outcome.err == (
        "stoker: port = 70000 (from --port) can't be used: allowed is a whole number from 0 to 65535\n"
    )

    monkeypatch.setenv("STOKER_CONFIG", "/nowhere/config.toml")
    assert stoker("status").code == 78


def test_the_socket_flag_wins_over_the_environment(stoker: Run, serve: Serve, tmp_path: Path) -> None:
    """`--socket` names another daemon than `STOKER_SOCKET` does."""
    serve(FakeSteward())

    assert stoker("ready").code == 0
    assert stoker("ready", "--socket", tmp_path / "other.sock").code == 3


@pytest.mark.parametrize("command", ["ready", "status", "warm list"])
def test_commands_that_only_ask_import_little(serve: Serve, command: str) -> None:
    """What only asks, with `--json`, loads neither an engine, nor the HTTP client, nor what draws tables."""
    serve(FakeSteward())
    code = (
        "import sys; from stoker.daemon.cli import main\n"
        f"assert main('{command} --json'.split()) == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_ctrl_c_is_quiet(serve: Serve) -> None:
    """An interrupted command leaves with 130, and without a traceback."""
    serve(FakeSteward())
    with stoker_process("status", "--watch") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert err == ""


def test_a_reader_that_leaves_is_no_error(serve: Serve) -> None:
    """`stoker … | head` ends quietly, whether the pipe is closed before or while we write."""
    serve(FakeSteward())
    reading, writing = os.pipe()
    os.close(reading)
    with stoker_process("status", "--json", stdout=writing) as process:
        os.close(writing)
        _, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (141, "")
