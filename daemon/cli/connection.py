"""How commands reach the daemon."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import anyio
import typer

from ...ipc.control import CALL_TIMEOUT, ControlClient, connect
from ..config import load_client_settings

ANSWER = TypeVar("ANSWER")

SocketOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--socket", metavar="PATH", help="The daemon's control socket.", show_default="as configured"),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Answer in JSON, one object a line.")]


def control_socket(flag: Path | None) -> Path:
    """The control socket's path: flag, else environment, else configuration file, else the platform's.

    Raises:
        ConfigurationError: If that can't be found out.
    """
    return load_client_settings(flag, os.environ).control_socket


def ask(
    socket: Path | None, question: Callable[[ControlClient], Awaitable[ANSWER]], within: float = CALL_TIMEOUT
) -> ANSWER:
    """Connect, ask, leave. Blocks.

    Raises:
        ClientError: Whatever went wrong, for `main` to tell.
    """
    path = control_socket(socket)

    async def conversation() -> ANSWER:
        async with connect(path, within) as client:
            return await question(client)

    return anyio.run(conversation)
