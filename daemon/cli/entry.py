"""From arguments to an exit code; errors become one line on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ... import __version__
from ...ipc.control import ClientError, DaemonAbsent
from ...launchd.job import ManagerError
from ..config import ConfigurationError
from ..runtime_dir import RuntimeDirError
from . import ask, bench, cache, chat, doctor, logs, order, run, service, warm
from .outcome import CONFIGURATION, FAILED, INTERRUPTED, NO_DAEMON, PIPE_CLOSED, Failure, complain

app = typer.Typer(
    name="stoker",
    help="Keeps a local language model running and warm.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stoker {__version__}")
        raise typer.Exit


@app.callback()
def _stoker(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Keeps a local language model running and warm.

    Exit codes: 0 yes or done, 1 no, 2 failed or wrong usage, 3 no daemon, 78 wrong configuration.
    """


prefixes = typer.Typer(
    name="warm",
    help="See, pin and forget the prefixes that Stoker keeps warm, or learned from requests.",
    no_args_is_help=True,
)
app.add_typer(prefixes)
stored = typer.Typer(
    name="cache", help="See, check and delete the prefixes that Stoker keeps on disk.", no_args_is_help=True
)
app.add_typer(stored)


def _add(command: Callable[..., Any], *examples: str, group: typer.Typer = app, name: str | None = None) -> None:
    """Register a command, with its examples under its help."""
    group.command(name, epilog="\n\n".join(["Examples:", *examples]))(command)


_add(run.run, "stoker run", "stoker run --model mlx-community/Llama-3.2-3B-Instruct-4bit --port 8080")
_add(
    service.install,
    "stoker install",
    "stoker install --model mlx-community/Qwen3-4B-4bit",
    "stoker install --dry-run",
)
_add(service.uninstall, "stoker uninstall", "stoker uninstall --purge")
_add(service.start, "stoker start", "stoker start --no-wait")
_add(ask.ready, "stoker ready", "stoker ready --wait --timeout 120 && ./agent", "stoker ready --json")
_add(ask.status, "stoker status", "stoker status --watch", "stoker status --json")
_add(order.rewarm, "stoker rewarm", "stoker rewarm --prompt agent.md --prompt reviewer.md")
_add(order.restart, "stoker restart", "stoker restart --cold", "stoker restart --no-wait")
_add(order.stop, "stoker stop")
_add(chat.chat, 'stoker chat "Why is the sky blue?"', "stoker chat", "stoker chat --system role.md < question.txt")
_add(doctor.doctor, "stoker doctor", "stoker doctor --json")
_add(
    bench.bench,
    "stoker bench",
    "stoker bench --plot first-token.png",
    "stoker bench --model mlx-community/Qwen3-4B-4bit --tokens 1000,4000 --repeats 3",
    "stoker bench --json > figures.json",
)
_add(logs.logs, "stoker logs", "stoker logs -f", "stoker logs --worker -n 200")
_add(warm.show, "stoker warm list", "stoker warm list --json", group=prefixes, name="list")
_add(warm.pin, "stoker warm pin learned-1a2b3c4d", "stoker warm pin learned-1a2b3c4d --off", group=prefixes)
_add(warm.forget, "stoker warm forget learned-1a2b3c4d", group=prefixes)
_add(warm.clear, "stoker warm clear", "stoker warm clear --yes", group=prefixes)
_add(cache.show, "stoker cache list", "stoker cache list --json", group=stored, name="list")
_add(cache.verify, "stoker cache verify", "stoker cache verify --json", group=stored)
_add(
    cache.clear, "stoker cache clear agent", "stoker cache clear --foreign", "stoker cache clear --yes", group=stored
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Without the program's name; None for the process's own.

    Returns:
        The exit code.
    """
    try:
        code = app(args=arguments, prog_name="stoker", standalone_mode=False)
        sys.stdout.flush()  # here, where a closed pipe can still be caught
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # the latter is Typer's answer to a closed pipe, and to nothing else
        _silence_stdout()
        return PIPE_CLOSED
    except (typer.TyperException, ClientError, ConfigurationError, ManagerError, RuntimeDirError, Failure) as error:
        return _explain(error)
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> int:
    match error:
        case typer.TyperException():
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "stoker"
            if message := error.format_message().rstrip("."):  # without a command the help was shown already
                complain(f"{message}; see `{command} --help`")
            return FAILED
        case ConfigurationError() | RuntimeDirError():
            code = CONFIGURATION
        case DaemonAbsent():
            code = NO_DAEMON
        case Failure():
            code = error.exit_code
        case _:
            code = FAILED
    complain(str(error))
    return code


def _silence_stdout() -> None:
    """Python flushes stdout once more at exit, and would complain about the closed pipe."""
    os.dup2(os.open(Path(os.devnull), os.O_WRONLY), sys.stdout.fileno())
