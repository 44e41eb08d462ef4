"""`install`, `uninstall`, `start`: the daemon as a service of the system, through its service manager."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import anyio
import typer

from ...ipc.control import ClientError, connect
from ...ipc.control_messages import Readiness
from ...launchd.job import Job, ServiceManager
from ..config import load_settings
from ..settings import KEYS, Settings
from ..steward import is_settled
from .ask import verdict
from .outcome import Failure
from .words import headline

PASSED_ON = ("HOME", "PATH", "LANG", "LC_ALL", "TMPDIR", "XDG_RUNTIME_DIR", "HF_HOME", "HF_HUB_OFFLINE")
"""Variables of the shell that the service gets beside Stoker's own: a service manager sets almost none."""

SECRET = frozenset({"STOKER_API_KEYS"})
"""Never written into a unit or property list, which others can read."""

SOCKET_PATIENCE = 30.0
"""Seconds in which an installed daemon must answer on its control socket; it takes about half a second."""

SOCKET_POLL = 0.1

DOWN_FOR_GOOD = 10
"""Looks in a row at which the manager has it down: what was ordered a moment ago may not have begun."""


def manager() -> ServiceManager:
    """This platform's."""
    if sys.platform == "darwin":
        from ...launchd.launch_agent import LaunchAgent  # noqa: PLC0415 - only these commands need it

        return LaunchAgent()
    from ...launchd.user_unit import UserUnit  # noqa: PLC0415 - as above

    return UserUnit()


ModelOption = Annotated[str | None, typer.Option("--model", metavar="MODEL", help="As for `stoker run`.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Configuration, TOML.")]


def install(
    *,
    model: ModelOption = None,
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="Address of the HTTP API.")] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="N", help="Its port.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written and run; change nothing.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Return when it is ready, or once it answers.")
    ] = True,
    timeout: Annotated[float, typer.Option("--timeout", min=0.0, metavar="S", help="Longest wait, seconds.")] = 600.0,
) -> None:
    """Install Stoker as a service that starts when you log in.

    It is a launchd agent on macOS, a systemd user unit on Linux. What is installed already is replaced. The service
    will have these flags, and the STOKER_* variables that are set now.
    """
    flags = {"model": model, "host": host, "port": port}
    settings, _ = load_settings(flags, os.environ, config)  # a mistake shows here, not in a log that nobody reads
    service = manager()
    job = job_of(settings, run_arguments(flags, config), os.environ)
    if dry_run:
        _show(service, job)
        return
    former = _demand_no_foreground_daemon(service, settings.control_socket)
    service.install(job)
    patience = SOCKET_PATIENCE + (job.stop_seconds if former is not None else 0)
    anyio.run(_wait_for_answer, service, settings.control_socket, patience, former)
    typer.echo(f"installed as a {service.name} service: {service.standing().words}")
    if wait:
        readiness = anyio.run(_wait_for_ready, settings.control_socket, timeout)
        typer.echo(headline(readiness))
        raise typer.Exit(verdict(readiness))


def uninstall(
    *,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete converted models and prefixes on disk, too.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Stop the service and take it out of the service manager; logs and what was learned are deleted.

    Converted models stay, because they can be large and are of use to the next install; --purge deletes them, too.
    """
    from .leftovers import remove  # noqa: PLC0415 - only this command needs it

    settings, _ = load_settings({}, os.environ, config)
    there = manager().uninstall()
    kept = remove(settings, purge=purge)
    typer.echo("uninstalled" if there else "Stoker was not installed as a service; nothing to uninstall")
    for path in kept:
        typer.echo(f"kept: {path}")


def start(
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it is ready, or at once.")] = True,
    timeout: Annotated[float, typer.Option("--timeout", min=0.0, metavar="S", help="Longest wait, seconds.")] = 600.0,
) -> None:
    """Start the installed service."""
    settings, _ = load_settings({}, os.environ)
    service = manager()
    service.start()
    anyio.run(_wait_for_answer, service, settings.control_socket, SOCKET_PATIENCE)
    if wait:
        readiness = anyio.run(_wait_for_ready, settings.control_socket, timeout)
        typer.echo(headline(readiness))
        raise typer.Exit(verdict(readiness))
    typer.echo("started")


# -- what is installed -------------------------------------------------------------------------------------


def run_arguments(flags: Mapping[str, object], config: Path | None) -> tuple[str, ...]:
    """The arguments of the service, with paths that hold from any folder."""
    arguments = ["run"]
    if config is not None:
        arguments += ["--config", str(config.expanduser().absolute())]
    for name, value in flags.items():
        if value is not None:
            arguments += [f"--{name}", _anywhere(name, str(value))]
    return tuple(arguments)


def _anywhere(name: str, value: str) -> str:
    """A model's folder by its absolute path; the service is not started from here."""
    path = Path(value).expanduser()
    return str(path.absolute()) if name == "model" and path.is_dir() else value


def job_of(settings: Settings, arguments: tuple[str, ...], environ: Mapping[str, str]) -> Job:
    """The daemon as a job."""
    ours = {key.env for key in KEYS.values()} | {"STOKER_CONFIG"}
    wanted = (ours | set(PASSED_ON)) - SECRET
    return Job(
        program=program(),
        arguments=arguments,
        environment={name: value for name, value in environ.items() if name in wanted and value},
        log=settings.log_dir / "service.log",
        stop_seconds=settings.drain_timeout_sec + settings.stop_grace_sec,
    )


def program() -> Path:
    """The command `stoker` of this environment, by a path that does not change.

    Its name is what macOS shows under Login Items, where `python` would say nothing to anybody.

    Raises:
        Failure: It is not where it was installed.
    """
    path = Path(sys.executable).with_name("stoker")
    if not os.access(path, os.X_OK):
        raise Failure(
            f"there is no {path}, which the service would run; install Stoker with pip into this environment"
        )
    return path


def _show(service: ServiceManager, job: Job) -> None:
    plan = service.plan(job)
    typer.echo(f"# {plan.path}\n{plan.text.rstrip()}\n\n# then")
    for command in plan.commands:
        typer.echo(" ".join(command))


# -- whether it runs ---------------------------------------------------------------------------------------


def _demand_no_foreground_daemon(service: ServiceManager, socket: Path) -> int | None:
    """The pid of the service's daemon, if one runs.

    Raises:
        Failure: Somebody runs one in a terminal. It has the lock and the port; the service could only fail beside it.
    """
    pid = anyio.run(_running, socket)
    if pid is not None and service.standing().pid != pid:
        raise Failure(f"a daemon that is no service runs already (pid {pid}); stop it first: stoker stop")
    return pid


async def _running(socket: Path) -> int | None:
    try:
        async with connect(socket) as client:
            return client.daemon.pid
    except ClientError:
        return None


async def _wait_for_answer(service: ServiceManager, socket: Path, patience: float, former: int | None = None) -> None:
    """The proof of an install: not that the manager said yes, but that the daemon answers.

    That is not the `former` one, which answers until it has ended, and a manager may have only begun to stop it.
    """
    down = 0
    with anyio.move_on_after(patience):
        while await _running(socket) in {None, former}:
            await anyio.sleep(SOCKET_POLL)
            down = 0 if await _is_up(service) else down + 1
            if down == DOWN_FOR_GOOD:
                break
        else:
            return
    words = (await anyio.to_thread.run_sync(service.standing)).words
    raise Failure(
        f"{service.name} has the service, but no daemon answers on {socket} ({words}); look at `stoker logs`, or try "
        "`stoker run`"
    )


async def _is_up(service: ServiceManager) -> bool:
    """Whether the manager runs it, or is about to; or won't tell."""
    return (await anyio.to_thread.run_sync(service.standing)).loaded is not False


async def _wait_for_ready(socket: Path, timeout: float) -> Readiness:  # noqa: ASYNC109 - the answer is a snapshot
    """Follow what the daemon does, on the terminal, until it is ready or has failed, or the time is over."""
    from .announce import display_for  # noqa: PLC0415 - imports rich

    display = display_for(sys.stderr)
    last: Readiness | None = None
    try:
        with anyio.move_on_after(timeout):
            async with connect(socket) as client, aclosing(client.watch()) as changes:
                async for last in changes:
                    if is_settled(last):
                        return last
                    display.show(last)
    finally:
        display.close()
    if last is None:
        raise Failure("the daemon does not answer; look at `stoker logs`")
    return last
