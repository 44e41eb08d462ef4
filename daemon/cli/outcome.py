"""Exit codes, and how a command says that it failed."""

from __future__ import annotations

import os
import sys

NEGATIVE = 1
"""The answer is no, or not yet."""

FAILED = 2
"""It can't be done, or the command line is wrong."""

NO_DAEMON = 3
CONFIGURATION = os.EX_CONFIG
"""A service manager should not try again."""

INTERRUPTED = 130
"""Ctrl-C, as shells number it (128 + SIGINT)."""

PIPE_CLOSED = 141
"""The reader of our output left (128 + SIGPIPE)."""


class Failure(Exception):
    """A command can't do what was asked; the message is one line, with the remedy."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def complain(message: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"stoker: {' '.join(message.split())}\n")
