"""`stoker run`: the daemon in the foreground."""

from __future__ import annotations

import os
import resource
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .outcome import complain

DESCRIPTORS = 8192
"""Enough for 4096 control connections and as many HTTP ones; launchd's default of 256 is not."""


def run(
    *,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="`embedded`, a directory, or a hub id.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Configuration, TOML.")] = None,
    host: Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="Address of the HTTP API.")] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="N", help="Its port; 0 takes any free one.")] = None,
    socket: Annotated[
        Path | None, typer.Option("--socket", metavar="PATH", help="Path of the control socket.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
    ] = None,
) -> None:
    """Run the daemon in the foreground: load the model, warm it, serve, until Ctrl-C or `stoker stop`.

    Flags win over environment variables, these over the configuration file. See docs/configuration.md.
    """
    from ..config import load_settings  # noqa: PLC0415 - like the service, only this command needs it
    from ..run import run_daemon  # noqa: PLC0415 - imports the HTTP server
    from .announce import Announcer  # noqa: PLC0415 - imports rich
    from .systemd import Telling, notifier_from  # noqa: PLC0415 - only this command needs it

    flags = {"model": model, "host": host, "port": port, "socket": socket, "log_level": log_level}
    read = partial(load_settings, flags, os.environ, config)
    settings, warnings = read()
    for warning in warnings:
        complain(f"warning: {warning}")
    raise_descriptor_limit()
    manager = Telling(notifier_from(os.environ))
    beside = (Announcer(settings.control_socket), manager)
    raise typer.Exit(run_daemon(settings, warnings, *beside, reread=read, on_reload=manager.reloading))


def raise_descriptor_limit() -> None:
    """Allow ourselves as many open files as we may need and the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        complain(f"warning: only {soft} files may be open at once ({error}); more connections will have to wait")
