"""What a service manager is to run, in terms of none of them; and how registering it can fail."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class ManagerError(Exception):
    """The service manager, or the system around it, said no. The message names the cause and the way out."""


@dataclass(frozen=True, slots=True)
class Job:
    """The daemon, as a service.

    Attributes:
        program: Absolute path. macOS shows its last part to the user, under Login Items.
        arguments: Those after it.
        environment: All that the daemon shall have; a service inherits nothing of a shell.
        log: What is printed before the daemon's own log is open goes there.
        stop_seconds: Longest time that the daemon takes to stop by itself. The manager waits for longer.
    """

    program: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    stop_seconds: float

    @property
    def command(self) -> tuple[str, ...]:
        """Program and arguments."""
        return (str(self.program), *self.arguments)


@dataclass(frozen=True, slots=True)
class Plan:
    """What an install would do: the file, its text, and the commands after it."""

    path: Path
    text: str
    commands: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """How the manager has the service.

    Attributes:
        installed: Its file is there.
        loaded: The manager knows it; None if it won't tell.
        pid: Of the running daemon.
        words: The manager's own, for people.
    """

    installed: bool
    loaded: bool | None
    pid: int | None = None
    words: str = ""


class ServiceManager(Protocol):
    """launchd or systemd. Each method blocks within a bound, and raises `ManagerError`."""

    name: str

    def plan(self, job: Job) -> Plan:
        """What `install` would do."""

    def install(self, job: Job) -> None:
        """Register and start the job, in place of what is registered; the same again changes nothing that is seen."""

    def uninstall(self) -> bool:
        """Stop it, and forget it; says whether there was anything."""

    def start(self) -> None:
        """Start what is installed; nothing if it runs."""

    def stop(self) -> None:
        """Stop it until the next start or login."""

    def standing(self) -> Standing:
        """How it is now."""


def write_atomically(path: Path, text: bytes) -> None:
    """Write a file that is there whole or not at all, whatever happens, and that only its owner may change (0644).

    Raises:
        ManagerError: It can't be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(beside, text)
            beside.replace(path)
        finally:
            with suppress(FileNotFoundError):  # it was renamed
                beside.unlink()
    except OSError as error:
        raise ManagerError(
            f"cannot write {path}: {error.strerror}; check the folder's owner and permissions"
        ) from error


def _write(path: Path, text: bytes) -> None:
    with path.open("wb") as file:
        # Whatever the umask: launchd refuses a plist that others may write ("bad ownership/permissions", 122).
        os.fchmod(file.fileno(), 0o644)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
