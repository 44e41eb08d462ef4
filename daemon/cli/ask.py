"""Commands that only ask: `ready` and `status`."""

from __future__ import annotations

import sys
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
import typer

from ...ipc.control import ControlClient, DaemonAbsent, connect
from ...ipc.control_messages import Document, Readiness, StatusReport
from .connection import JsonOption, SocketOption, ask, control_socket
from .outcome import FAILED, NEGATIVE
from .words import headline

START_GRACE = 5.0
"""Seconds that `ready --wait` gives a daemon to appear at all: it may have been started just now."""

RETRY_INTERVAL = 0.05


def ready(
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is ready, or has failed.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0.0, metavar="S", help="Longest wait, seconds.")] = 60.0,
    json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Is the service ready, and warm?

    Exit code 0 yes, 1 not yet, 2 failed, 3 no daemon.
    """
    now = anyio.run(_wait, control_socket(socket), timeout) if wait else ask(socket, ControlClient.ready)
    if json:
        print_json(now)
    else:
        typer.echo(headline(now))
    raise typer.Exit(verdict(now))


def verdict(now: Readiness) -> int:
    """The exit code of a snapshot."""
    if now.ready:
        return 0
    return FAILED if now.phase == "failed" else NEGATIVE


async def _wait(path: Path, timeout: float) -> Readiness:  # noqa: ASYNC109 - after it there is an answer too
    start = anyio.current_time()
    while True:
        try:
            async with connect(path) as client:
                return await client.wait_ready(max(0.0, start + timeout - anyio.current_time()))
        except DaemonAbsent:
            if anyio.current_time() >= start + min(timeout, START_GRACE):
                raise
        await anyio.sleep(RETRY_INTERVAL)


def print_json(document: Document) -> None:
    """One line on stdout."""
    typer.echo(msgspec.json.encode(document).decode())


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow every change, until Ctrl-C.")] = False,
    json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Show everything the daemon knows: model, worker, warmup, restarts, requests, speed."""
    if watch:
        anyio.run(_follow, control_socket(socket), json)
        return
    report = ask(socket, ControlClient.status)
    if json:
        print_json(report)
    else:
        _print(report)


def _print(report: StatusReport) -> None:
    from .view import console, table  # noqa: PLC0415 - rich takes longer to import than the daemon to answer

    console().print(table(report))


async def _follow(path: Path, json: bool) -> None:
    """Show the whole status at each transition that the daemon pushes. Ends with the daemon: exit code 3."""
    from .view import LiveStatus  # noqa: PLC0415 - as above

    async with connect(path) as watching, connect(path) as asking, aclosing(watching.watch()) as changes:
        if json or not sys.stdout.isatty():
            async for now in changes:
                report = await asking.status()
                typer.echo(msgspec.json.encode(report).decode() if json else headline(now))
                sys.stdout.flush()
            return
        with LiveStatus() as live:
            async for _ in changes:
                live.show(await asking.status())
