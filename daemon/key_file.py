"""The file with the API's keys: one a line, for nobody else's eyes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from .settings import ApiKey

SIZE_LIMIT = 64 * 1024
"""Bytes that are read: more is no file of keys."""


class KeyFileError(Exception):
    """The file can't be used; the message says why and what to do, and quotes nothing of it."""


def read_key_file(path: Path) -> tuple[str, ...]:
    """The keys in a file: one a line; empty lines, and those that begin with `#`, are skipped.

    Raises:
        KeyFileError: It can't be read, others may read it, or a line is no key.
    """
    lines = [line.strip() for line in _text(path).splitlines()]
    keys = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    if not keys:
        raise KeyFileError(f"{path} holds no key; write one into it, or leave api_key_file out")
    return tuple(_checked(path, number, key) for number, key in keys)


def others_may_read(path: Path) -> bool:
    """Whether the file's mode lets the group or everyone read it."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False  # whoever reads the file tells that


def _text(path: Path) -> str:
    try:
        # Opened first and then looked at: what was checked is what is read. A pipe without a writer doesn't hold us.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
            _check_mode(path, os.fstat(descriptor))
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise KeyFileError(f"{path} can't be read: {error.strerror}") from error
    if len(data) > SIZE_LIMIT:
        raise KeyFileError(f"{path} is larger than {SIZE_LIMIT} bytes, which no file of keys is")
    return data.decode("latin-1")  # what is no ASCII is no key, and is told by its line


def _check_mode(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise KeyFileError(f"{path} is no file")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise KeyFileError(f"others may use {path} (mode {mode:04o}): chmod 600 it")


def _checked(path: Path, number: int, key: str) -> str:
    try:
        return msgspec.convert(key, ApiKey)
    except msgspec.ValidationError:
        raise KeyFileError(
            f"line {number} of {path} is no key, which has 8 to 512 visible ASCII characters"
        ) from None
