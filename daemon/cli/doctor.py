"""`stoker doctor`: what is wrong, or could be better, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
import typer

from ...ipc.control import ClientError, connect
from ...ipc.control_messages import StatusReport
from ...launchd.job import ManagerError, Standing
from ..checkup.finding import Finding, note, ok
from ..config import load_settings
from ..settings import Settings
from . import service
from .connection import JsonOption
from .outcome import NEGATIVE
from .words import printable

MARKS = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}


def doctor(
    *,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Configuration, TOML.")] = None,
    json: JsonOption = False,
) -> None:
    """Look at machine, Python, MLX, model, memory, folders, port, service, the running daemon and its speed.

    It changes nothing. While the daemon is idle its worker and this shell measure in turn, half a second each time.

    Exit code 0 nothing is wrong, 1 something is.
    """
    settings, warnings = load_settings({}, os.environ, config)
    bad = False
    for finding in _all(settings, warnings):
        bad = bad or finding.level == "wrong"
        typer.echo(msgspec.json.encode(finding).decode() if json else line(finding))
    raise typer.Exit(NEGATIVE if bad else 0)


def line(finding: Finding) -> str:
    """A finding for people; its remedy on a line of its own."""
    text = f"{MARKS[finding.level]}  {finding.subject}: {printable(finding.text)}"
    return f"{text}\n       -> {printable(finding.remedy)}" if finding.remedy else text


def _all(settings: Settings, warnings: tuple[str, ...]) -> Iterator[Finding]:
    """In the order of what stands on what; the slow look at the engine comes late."""
    from ..checkup import engine, machine, places, running, speed  # noqa: PLC0415 - they import psutil

    report = anyio.run(_report, settings.control_socket)
    yield from (note("configuration", warning) for warning in warnings)
    yield from machine.findings(machine.Machine.here())
    yield from places.findings(settings, report.pid if report else None)
    manager, standing = _standing()
    yield _service(manager, standing)
    yield from engine.findings(settings)
    yield from running.findings(report)
    mine = isinstance(standing, Standing) and report is not None and standing.pid == report.pid
    yield from speed.findings(report, settings.control_socket, manager if mine else None)


async def _report(socket: Path) -> StatusReport | None:
    try:
        async with connect(socket) as client:
            return await client.status()
    except ClientError:
        return None  # that there is none, `places` says


def _standing() -> tuple[str, Standing | ManagerError]:
    """The service manager's name, and how it has the service."""
    manager = service.manager()
    try:
        return manager.name, manager.standing()
    except ManagerError as error:
        return manager.name, error


def _service(manager: str, standing: Standing | ManagerError) -> Finding:
    if isinstance(standing, ManagerError):
        return note("service", str(standing))
    if not standing.installed:
        return ok("service", f"not installed with {manager}; `stoker install` does that")
    return ok("service", f"{manager}: {standing.words}")
