"""`stoker bench`: how long the first token takes on this machine, cold, warm and restored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..config import load_settings
from .connection import JsonOption
from .outcome import complain

SIZES = "500,2000"
REPEATS = 2
"""Two minutes together where 2,000 tokens of cold prefill take 13 s, four where they take 28 s."""


def bench(
    *,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="As for `stoker run`.", show_default="as configured"),
    ] = None,
    tokens: Annotated[
        str, typer.Option("--tokens", metavar="N,N", help="Lengths of the system prompts, about.")
    ] = SIZES,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, max=100, metavar="N", help="Trials of each length.")
    ] = REPEATS,
    plot: Annotated[
        str | None,
        typer.Option("--plot", metavar="FILE", help="Draw the times, too: a .png, .svg or .pdf. Needs matplotlib."),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Configuration, TOML.")] = None,
    json: JsonOption = False,
) -> None:
    """Measure on this machine: time to first token (cold, warm, restored), tokens per second, restart to ready.

    A daemon of its own is started, in a folder that is gone afterwards; the running service is left alone.

    It takes two to four minutes on two cores and tells its progress on standard error.

    Exit code 0 measured, 1 measured and something is wrong, 2 not measured.
    """
    from .measure import Wanted, picture, planned, run  # noqa: PLC0415 - imports rich, and what only this command needs

    wanted = Wanted(planned(tokens, repeats), picture(plot) if plot is not None else None, json, model, config)
    settings, warnings = load_settings({"model": model}, os.environ, config)
    for warning in warnings:
        complain(f"warning: {warning}")
    raise typer.Exit(run(settings, wanted))
