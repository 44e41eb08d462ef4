"""What `stoker run` shows: progress until ready, then where to send requests, then what happens to the worker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol, TextIO

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ...ipc.control import ClientError, connect
from ...ipc.control_messages import ProgressStatus, Readiness
from ..steward import Snapshots
from .words import PHASES, STAGES, activity, headline, printable

INVITATION = """\
stoker: send requests to {http}/v1 (model {model}), or talk to it with `stoker chat`; for example:
  curl {http}/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "default", "messages": [{{"role": "user", "content": "Hello"}}]}}'
"""

STEP = 0.25
"""Share of a stage between two plain lines of progress."""

LONG = 16
"""Units from which on a stage is long enough for more than one line."""


class Display(Protocol):
    """Shows snapshots on the way to ready."""

    def show(self, now: Readiness) -> None:
        """Show this one."""

    def close(self) -> None:
        """Leave the screen in order."""


def display_for(out: TextIO) -> Display:
    """A bar on a terminal, lines elsewhere."""
    return Bar(out) if out.isatty() else Lines(out)


class Announcer:
    """Run beside the daemon; give it the board.

    Args:
        socket: The daemon's own control socket: it tells model and address once they are known.
        out: Where to write; None for standard output.
    """

    def __init__(self, socket: Path, out: TextIO | None = None) -> None:
        self._socket = socket
        self._out = out or sys.stdout

    async def __call__(self, board: Snapshots) -> None:
        """Announce until cancelled. An output that goes away ends the announcing, not the daemon."""
        display = display_for(self._out)
        invited = False
        try:
            async for now in board.watch():
                if isinstance(display, Bar) and (now.ready or now.phase == "failed"):
                    display.close()
                    display = Lines(self._out)
                display.show(now if not invited else _without_progress(now))
                if now.ready and not invited:
                    invited = await self._invite()
        except (OSError, ValueError):
            return  # closed or broken output: nobody is left to announce to
        finally:
            display.close()

    async def _invite(self) -> bool:
        try:
            async with connect(self._socket) as client:
                report = await client.status()
        except ClientError:
            return False  # being stopped already, most likely; else the next change tries again
        self._out.write(INVITATION.format(http=report.http, model=report.model or "default"))
        self._out.flush()
        return True


class Lines:
    """Plain lines, for logs and pipes: a new one for each phase, and for each quarter of a long stage."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last: tuple[object, ...] = ()
        self._said = ""

    def show(self, now: Readiness) -> None:
        """Write a line if it would say something new."""
        line = headline(now) if now.ready or now.phase == "failed" else activity(now)
        key = (now.generation, now.phase, now.warm, now.reason, *_part(now.progress))
        if key != self._last and line != self._said:
            self._out.write(f"stoker: {printable(line)}\n")
            self._out.flush()
            self._said = line
        self._last = key

    def close(self) -> None:
        """Nothing is left open."""


def _without_progress(now: Readiness) -> Readiness:
    """A later restart is news; its every step is not."""
    return msgspec.structs.replace(now, progress=None)


def _part(progress: ProgressStatus | None) -> tuple[object, ...]:
    """What must change for progress to be worth a line."""
    if progress is None or progress.total < LONG:
        return ()
    return progress.stage, progress.name, int(progress.done / progress.total / STEP)


class Bar:
    """A progress bar, for a terminal."""

    def __init__(self, out: TextIO) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(*columns, TimeElapsedColumn(), console=Console(file=out), transient=True)
        self._progress.start()
        self._task = self._progress.add_task("starting", total=None)

    def show(self, now: Readiness) -> None:
        """Move it."""
        progress = now.progress
        words = STAGES.get(progress.stage, progress.stage) if progress else PHASES.get(now.phase, now.phase)
        self._progress.update(
            self._task,
            description=printable(f"{words} {progress.name or ''}" if progress else words).strip(),
            completed=progress.done if progress else 0,
            total=(progress.total or None) if progress else None,
        )

    def close(self) -> None:
        """Take it away."""
        self._progress.stop()
