"""What a person hears while something is measured."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeAlias

Say: TypeAlias = Callable[[str], None]
"""Takes progress, for a person."""


def progress() -> Say:
    """Progress to standard error, with the seconds since now before each line."""
    started = time.monotonic()

    def say(what: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - started:4.0f} s] {what}\n")
        sys.stderr.flush()

    return say
