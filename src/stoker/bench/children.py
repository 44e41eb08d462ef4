"""Processes that we start: each is ended by us, whatever happens, and by its own pid."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeAlias

Process: TypeAlias = "subprocess.Popen[bytes]"

GRACE = 20.0
"""Seconds between asking a process to end and killing it: a daemon ends its worker first."""
KILLED = 10.0
"""Seconds for a killed process to be gone."""
POLL = 0.005
"""Seconds between two looks at what can't be waited for."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""By which a person, a program and a terminal that is closed tell us to end."""

CONFIGURING = ("STOKER_", "KV_CACHE_WARMUP", "WARMUP_")
"""Variables of whoever runs us that would change what is measured."""


class BenchmarkError(Exception):
    """It could not be measured; the message says why."""


@contextmanager
def own_folder() -> Iterator[Path]:
    """A private folder that is gone afterwards, under a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="stoker-bench-", dir="/tmp") as name:
        yield Path(name)


def clean_environment() -> dict[str, str]:
    """Ours, without anybody's configuration of Stoker, and without the network."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(CONFIGURING)}
    return environ | {"HF_HUB_OFFLINE": "1"}


@contextmanager
def unwinding() -> Iterator[None]:
    """Whatever tells us to end is a `KeyboardInterrupt` in this block, once.

    Further ones are ignored while it unwinds, so that they can't keep it from ending what was started; that has
    deadlines of its own. Only for the main thread.
    """
    struck = False

    def unwind(_number: int, _frame: FrameType | None) -> NoReturn:
        nonlocal struck
        struck = True
        for number in taken:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    taken = {number: each for number in ENDING if (each := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in taken:
        signal.signal(number, unwind)
    try:
        yield
    except BaseException as error:
        if struck and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from error  # an event loop that was struck in the middle fails in ways of its own
        raise
    finally:
        for number, before in taken.items():
            signal.signal(number, before)


@contextmanager
def child(command: Sequence[str], environ: Mapping[str, str], log: Path) -> Iterator[Process]:
    """A process while the block runs. It does not share our terminal, so that Ctrl-C is ours to pass on."""
    with log.open("ab") as sink:
        process = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        yield process
    finally:
        end(process)


def end(process: Process) -> None:
    """TERM, a grace, KILL; returns when it is gone."""
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass  # it had its chance
    finally:  # after a second Ctrl-C too: no more grace, but no orphan either
        process.kill()
        process.wait(KILLED)


def demand_alive(process: Process, log: Path) -> None:
    """Raise if it has ended, with its last words.

    Raises:
        BenchmarkError: It has.
    """
    if process.poll() is not None:
        words = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
        raise BenchmarkError(f"{process.args!r} ended with {process.returncode}:\n  " + "\n  ".join(words))


def deadline(seconds: float, what: str) -> Iterator[float]:
    """Ticks while there is time; yields the seconds passed.

    Raises:
        BenchmarkError: When the time is over.
    """
    start = time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        yield passed
        time.sleep(POLL)
    raise BenchmarkError(f"{what} did not happen within {seconds:g} s")
