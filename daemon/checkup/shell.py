"""A process of the user's shell, in the environment that a worker would get, which looks at something and tells."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TypeVar

import msgspec

from ..environment import find_openblas, worker_environment

T = TypeVar("T")

PYTHON = (sys.executable, "-P", "-m")
"""Runs a module of ours; `-P`, because the folder that the user is in may hold others of the same names."""

FAILURES = (OSError, subprocess.SubprocessError, msgspec.MsgspecError)
"""It could not be run, or told nothing."""


def told(command: tuple[str, ...], answer: type[T], timeout: float) -> T:
    """What the process prints, which is one JSON object.

    Args:
        command: Program and arguments.
        answer: The object's type.
        timeout: Seconds for it.

    Raises:
        OSError, subprocess.SubprocessError, msgspec.MsgspecError: As `FAILURES` says.
    """
    environ = worker_environment(os.environ, 0, find_openblas())
    done = subprocess.run(command, env=environ, capture_output=True, timeout=timeout, check=True)
    return msgspec.json.decode(done.stdout, type=answer)
