"""`stoker cache`: prefixes on disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from ...ipc.control import ControlClient, DaemonAbsent
from ...ipc.control_messages import StoredListing, Verification
from ...ipc.messages import ProvenPrefix, StoredPrefix
from ..config import CLIENT_KEYS, load_client_settings
from . import connection
from .ask import print_json
from .connection import JsonOption, SocketOption
from .outcome import NEGATIVE, Failure
from .words import printable, size

ANSWER = TypeVar("ANSWER")

FOLDER = "prefixes"
"""Below the cache directory."""


def show(json: JsonOption = False, socket: SocketOption = None) -> None:
    """List the prefixes on disk, of this model and of others, the latest used first.

    What can't be used is shown with the reason.
    """
    listing = _ask(socket, ControlClient.cache_list)
    if json:
        print_json(listing)
        return
    from .cache_view import shown  # noqa: PLC0415 - rich takes longer to import than the daemon to answer
    from .view import console  # noqa: PLC0415 - as above

    console().print(shown(listing))


def verify(json: JsonOption = False, socket: SocketOption = None) -> None:
    """Read every prefix on disk and compare it with what was saved.

    What is damaged is deleted; it is computed and saved again when it is warmed next. Exit code 1 if there was any.
    """

    async def question(client: ControlClient) -> Verification:
        listing = await client.cache_list()
        return Verification(prefixes=await _verified(client, listing))

    found = _ask(socket, question)
    if json:
        print_json(found)
    else:
        for prefix in found.prefixes:
            if prefix.fault:
                typer.echo(f"{_called(prefix)}: {printable(prefix.fault)}; deleted")
    damaged = sum(prefix.fault is not None for prefix in found.prefixes)
    read = f"{len(found.prefixes)} read, {size(sum(prefix.bytes for prefix in found.prefixes))}"
    typer.echo(f"{read}: {f'{damaged} damaged' if damaged else 'all as they were saved'}", err=json)
    raise typer.Exit(NEGATIVE if damaged else 0)


async def _verified(client: ControlClient, listing: StoredListing) -> tuple[ProvenPrefix, ...]:
    """One after the other, so that there is progress to tell of."""
    proven: list[ProvenPrefix] = []
    for index, prefix in enumerate(listing.prefixes):
        if sys.stderr.isatty():
            typer.echo(
                f"\r\x1b[Kreading {index + 1} of {len(listing.prefixes)}: {_called(prefix)}", err=True, nl=False
            )
        proven += (await client.cache_verify(prefix.key)).prefixes
    if sys.stderr.isatty():
        typer.echo("\r\x1b[K", err=True, nl=False)
    return tuple(proven)


def clear(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this one: a name or key of `stoker cache list`.")
    ] = None,
    foreign: Annotated[bool, typer.Option("--foreign", help="Only what the loaded model can't use.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    socket: SocketOption = None,
) -> None:
    """Delete prefixes from the disk: all of every model, one, or those that the loaded model can't use.

    What is warm stays warm; after a restart it is computed and saved again. To delete all of them it asks first on a
    terminal; elsewhere it needs --yes.
    """
    if name is None and not foreign and not yes:
        _confirm()
    gone = _ask(socket, lambda client: client.cache_clear(name, foreign=foreign))
    typer.echo(f"deleted: {gone.count} {'prefix' if gone.count == 1 else 'prefixes'}, {size(gone.bytes)}")


def _called(prefix: StoredPrefix | ProvenPrefix) -> str:
    return printable(prefix.name or prefix.key[:12])


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise Failure("`stoker cache clear` can't ask here, where nobody sits at a terminal; say --yes")
    typer.echo("Delete all prefixes on disk, of every model? [y/N] ", err=True, nl=False)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Failure("nothing was deleted", NEGATIVE)


def _ask(socket: Path | None, question: Callable[[ControlClient], Awaitable[ANSWER]]) -> ANSWER:
    try:
        return connection.ask(socket, question)
    except DaemonAbsent as error:
        folder = load_client_settings(None, os.environ, CLIENT_KEYS | {"cache_dir"}).cache_dir / FOLDER
        message = f"{error}; the files are in {folder}, which may be deleted while no daemon runs"
        raise DaemonAbsent(message) from error
