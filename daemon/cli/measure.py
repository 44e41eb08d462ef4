"""What `stoker bench` does: see whether it can be measured here, measure, show."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import anyio
import msgspec
import typer

from ...bench import options
from ...bench.children import own_folder, unwinding
from ...bench.machine import machine, versions
from ...bench.measuring import FAILURES, SETTINGS, Measured, Plan, measure
from ...bench.plot import curves, draw
from ...bench.progress import Say, progress
from ...bench.report import Json, Report
from ...bench.sections import sections
from ...bench.tables import show
from ...ipc.control import ClientError, connect
from ..checkup import engine, shell
from ..checkup.finding import gib
from ..derived import EMBEDDED_ID, models
from ..environment import find_openblas
from ..memory import machine_memory
from ..model_path import EMBEDDED
from ..settings import KEYS, Settings
from .outcome import NEGATIVE, Failure
from .view import console
from .words import printable

T = TypeVar("T")

CARRIED = (
    "context_tokens",
    "memory_limit_bytes",
    "memory_ceiling_bytes",
    "chunk_seconds",
    "load_stall_timeout_sec",
    "worker_command",
)
"""The user's settings that bear upon how the model computes; all others are the defaults, to compare machines by."""

DRAWN = ("cold", "warm", "restored")

EMBEDDED_BYTES = 600 << 20
EMBEDDED_CONTEXT = 8192
"""Of the embedded model, where it is not converted yet."""
PROCESSES_BYTES = 512 << 20
"""What daemon and worker take beside weights and KV: 0.2 GiB were seen when idle, some are buffers of a prefill."""
KV_COPIES = 3
"""Of the longest prompt: resident, of the running request, and being saved."""
BESIDE_PROMPT = 200
"""Tokens of template, question and answer."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for on the command line."""

    plan: Plan
    plot: Path | None = None
    json: bool = False
    model: str | None = None
    config: Path | None = None

    @property
    def command(self) -> str:
        """What to type to measure the same again."""
        plan = ["--tokens", ",".join(map(str, self.plan.sizes)), "--repeats", str(self.plan.repeats)]
        model = ["--model", self.model] if self.model is not None else []
        config = ["--config", str(self.config)] if self.config is not None else []
        return shlex.join(["stoker", "bench", *plan, *model, *config])


# -- what can be refused before anything is measured ---------------------------------------------------------


def planned(tokens: str, repeats: int) -> Plan:
    """How much.

    Raises:
        Failure: The lengths are none.
    """
    return Plan(_allowed("--tokens", options.sizes, tokens), repeats)


def picture(text: str) -> Path:
    """Where the picture goes.

    Raises:
        Failure: It could not be drawn, or not be written there.
    """
    path = _allowed("--plot", options.picture, text)
    if find_spec("matplotlib") is None:
        install = shlex.join([sys.executable, "-m", "pip", "install", "matplotlib"])
        raise Failure(f"--plot needs matplotlib, which is not installed; run: {install}")
    try:
        existed = path.exists()
        path.open("ab").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise Failure(f"--plot {path}: it can't be written ({error.strerror}); name another file") from error
    return path


def _allowed(option: str, read: Callable[[str], T], text: str) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise Failure(f"{option} {error}") from error


def look(settings: Settings, plan: Plan, *, beside: bool) -> engine.Seen | None:
    """What is known of the model without loading it; None of another worker's.

    Args:
        settings: The user's.
        plan: What is to be measured.
        beside: Whether the user's own service runs.

    Raises:
        Failure: It can't be measured here.
    """
    if settings.worker_command:
        return None
    try:
        seen = engine.look(settings)
    except shell.FAILURES as error:
        raise Failure(f"MLX and the model can't be looked at: {error}; `stoker doctor` says more") from error
    if seen.engine_problem is not None:
        raise Failure(f"MLX can't be imported: {seen.engine_problem}; {engine.REINSTALL}")
    if seen.model_problem is not None:
        raise Failure(f"{seen.model_problem}; {seen.remedy or 'name another with --model'}")
    if seen.absent and settings.model != EMBEDDED:
        raise Failure(
            f"the model {settings.model} is not on this machine yet; "
            f"`stoker run --model {settings.model}` fetches it, then measure"
        )
    own = EMBEDDED_CONTEXT if seen.absent else seen.context_tokens
    _check_context(settings.context_tokens or own, max(plan.sizes))
    _check_memory(seen, max(plan.sizes), beside=beside)
    return seen


def _check_context(context: int | None, size: int) -> None:
    if context is None or size + BESIDE_PROMPT <= context:
        return
    most = (context - BESIDE_PROMPT) // 100 * 100
    if most < options.LEAST_TOKENS:
        raise Failure(f"the model's context of {context:,} tokens is too short to measure; name another with --model")
    raise Failure(f"{size:,} tokens don't fit into the model's context of {context:,}; give --tokens up to {most}")


def _check_memory(seen: engine.Seen, size: int, *, beside: bool) -> None:
    kv = (seen.kv_bytes_per_token or 0) * (size + BESIDE_PROMPT) * KV_COPIES
    needed = (seen.model_bytes or EMBEDDED_BYTES) + kv + PROCESSES_BYTES
    _, available = machine_memory()
    if needed <= available:
        return
    what, remedy = ("the model", "end other programs")
    if beside:
        what, remedy = ("a second copy of the model", "end the running service with `stoker stop`")
    raise Failure(
        f"{what} needs about {gib(needed)} of memory, and {gib(available)} are free; "
        f"{remedy}, or measure a smaller one with --model"
    )


# -- measuring ------------------------------------------------------------------------------------------------


def run(settings: Settings, wanted: Wanted) -> int:
    """Measure, show, draw.

    Returns:
        The exit code.

    Raises:
        Failure: It could not be measured.
        KeyboardInterrupt: By Ctrl-C, TERM or a terminal that was closed; what was started is ended by then.
    """
    say = progress()
    with unwinding():
        try:
            report, measured = _measured(settings, wanted, say)
        except KeyboardInterrupt:
            say("interrupted; what was started is ended")
            raise
        except FAILURES as error:
            words = printable(str(error)) or repr(error)
            raise Failure(f"not measured: {words}; `stoker doctor` looks for causes") from error
    if wanted.json:
        typer.echo(msgspec.json.encode(report.data()).decode())
    else:
        show(report, console(), brief=True)
    if wanted.plot is not None:
        _draw(measured, wanted.plot, report.facts)
        say(f"written: {wanted.plot}")
    return 0 if report.correct else NEGATIVE


def _measured(settings: Settings, wanted: Wanted, say: Say) -> tuple[Report, Measured]:
    say("looking at the machine and the model")
    beside = anyio.run(_is_running, settings.control_socket)
    seen = look(settings, wanted.plan, beside=beside)
    facts = _facts(settings, beside=beside)
    if not facts["machine"]["quiet"]:
        say("the machine is busy: times will be too long; ratios suffer less")
    for note in facts["notes"]:
        say(note)
    with own_folder() as home:
        if settings.model == EMBEDDED and seen is not None and not seen.absent:
            _lend(settings.cache_dir, home)
        measured = measure(home, carried(settings), wanted.plan, say)
    return Report(wanted.command, facts, sections(measured)), measured


async def _is_running(socket: Path) -> bool:
    try:
        async with connect(socket):
            return True
    except ClientError:
        return False


def _facts(settings: Settings, *, beside: bool) -> Json:
    service = "your own service runs beside it, and shares the machine; `stoker stop` before gives cleaner figures"
    name = models(settings).id
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(find_openblas()),
        "versions": versions(),
        "model": name,
        "settings": carried(settings) | SETTINGS,
        "notes": [f"model: {printable(name)}", *([service] if beside else [])],
    }


def carried(settings: Settings) -> dict[str, str]:
    """The environment by which the daemon that is measured gets the user's model, and what bears upon it."""
    given = {KEYS[name].env: getattr(settings, name) for name in ("model", *CARRIED)}
    return {
        variable: ",".join(value) if isinstance(value, tuple) else str(value)
        for variable, value in given.items()
        if value not in (None, ())
    }


def _lend(cache: Path, home: Path) -> None:
    """Give the daemon the model that was converted already, by a link: it is only read."""
    (home / "cache").mkdir(mode=0o700)
    (home / "cache" / EMBEDDED_ID).symlink_to(cache / EMBEDDED_ID)


def _draw(measured: Measured, path: Path, facts: Json) -> None:
    on = facts["machine"]
    caption = f"{facts['model']}; {on['cpu']}, {on['cores']} cores; median, least and most"
    try:
        draw(curves(measured.findings, DRAWN), path, caption)
    except (OSError, ValueError) as error:
        raise Failure(f"--plot {path}: it can't be written: {error}; the figures are above") from error
