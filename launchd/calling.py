"""Running a service manager's own program."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from .job import ManagerError


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call gave: its exit status, and all that it printed."""

    code: int
    text: str

    @property
    def line(self) -> str:
        """The first line of it."""
        return self.text.splitlines()[0] if self.text else ""


def call(command: Sequence[str], timeout: float, otherwise: str) -> Reply:
    """Run a program and wait for it.

    Args:
        command: Program and arguments.
        timeout: Seconds.
        otherwise: What to do where there is no such program.

    Raises:
        ManagerError: It could not be run, or did not return.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise ManagerError(f"`{' '.join(command)}` did not return within {timeout:g} s; try again later") from None
    except OSError as error:
        raise ManagerError(f"cannot run {command[0]}: {error.strerror}; {otherwise}") from error
    return Reply(done.returncode, done.stdout.strip())
