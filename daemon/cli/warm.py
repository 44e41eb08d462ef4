"""`stoker warm`: which prefixes are warm or learned, and what shall become of the learned ones."""

from __future__ import annotations

import sys
from typing import Annotated, TypeAlias

import typer

from ...ipc.control import ControlClient
from .ask import print_json
from .connection import JsonOption, SocketOption, ask
from .outcome import NEGATIVE, Failure

QUESTION = "Forget all that was learned from requests, of every model?"

NameArgument: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="As `stoker warm list` shows it.")]


def show(json: JsonOption = False, socket: SocketOption = None) -> None:
    """List the configured prefixes, and those learned from requests, the most valuable first."""
    listing = ask(socket, ControlClient.warm_list)
    if json:
        print_json(listing)
        return
    from .prefix_view import shown  # noqa: PLC0415 - rich takes longer to import than the daemon to answer
    from .view import console  # noqa: PLC0415 - as above

    console().print(shown(listing))


def pin(
    name: NameArgument,
    off: Annotated[bool, typer.Option("--off", help="No longer.")] = False,
    socket: SocketOption = None,
) -> None:
    """Warm a learned prefix at every start, however seldom it is used."""
    ask(socket, lambda client: client.warm_pin(name, pinned=not off))
    typer.echo(f"{name} is no longer pinned" if off else f"{name} is pinned: warmed at every start")


def forget(name: NameArgument, socket: SocketOption = None) -> None:
    """Forget a learned prefix, and don't learn it again for a week."""
    ask(socket, lambda client: client.warm_forget(name))
    typer.echo(f"{name} is forgotten")


def clear(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False, socket: SocketOption = None
) -> None:
    """Forget all that was learned from requests, of every model, and delete it from the disk.

    Asks first on a terminal; elsewhere it needs --yes.
    """
    if not yes:
        _confirm()
    count = ask(socket, ControlClient.warm_forget)
    typer.echo(f"forgotten: {count} learned {'prefix' if count == 1 else 'prefixes'} of this model, and all others'")


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise Failure("`stoker warm clear` can't ask here, where nobody sits at a terminal; say --yes")
    typer.echo(f"{QUESTION} [y/N] ", err=True, nl=False)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Failure("nothing was forgotten", NEGATIVE)
