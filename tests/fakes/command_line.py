"""Types and helpers of the tests of the command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from tests.fakes.fake_steward import BackgroundDaemon, FakeSteward


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str


Run: TypeAlias = Callable[..., Outcome]
Serve: TypeAlias = Callable[[FakeSteward], BackgroundDaemon]


@contextmanager
def stoker_process(*arguments: str, stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """A command as a process of its own; it is gone at the end of the block."""
    command = [sys.executable, "-m", "stoker.daemon", *arguments]
    with subprocess.Popen(command, text=True, stdout=stdout, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()
