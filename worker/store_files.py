"""The files of the prefix store: names that only we make, writes that are whole or absent, one lock.

Every name is a key of ours, 40 hexadecimal digits, and one of a few endings; other names are not touched, and not
counted. Files are opened without following links and without blocking on what is no regular file. A half-written file
has a name of its own (`.part`) until it is on the disk, and its writer has it locked: one that isn't locked was left
by a process that died, however it died.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeAlias, cast, get_args

Ending: TypeAlias = Literal["safetensors", "json", "uses", "quarantined", "restoring", "warming"]
"""KV, its manifest, its uses (one byte each), why it may not be used, and what was going on with it."""

KEY_DIGITS = 40
LOCK = "lock"
LOCK_INTERVAL = 0.02
"""Seconds between two tries to take the lock."""
TRIES = 8
FOLDER_MODE, FILE_MODE = 0o700, 0o600

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NAME = re.compile(rf"([0-9a-f]{{{KEY_DIGITS}}})(\.[0-9a-f]{{8}}\.part)?\.({'|'.join(get_args(Ending))})")


class Busy(OSError):
    """Another process held the lock for as long as this one would wait."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of ours as the directory shows it. `stamp` changes whenever the content does."""

    name: str
    key: str
    ending: Ending
    partial: bool
    size: int
    modified: float
    stamp: tuple[int, int, int]


class Folder:
    """The store's directory. Methods raise OSError where the file system refuses; what is gone is no error.

    Args:
        path: Its place; its last part may not be a link.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make the directory, for this user only.

        Raises:
            OSError: It can't be made, is a link, or belongs to someone else.
        """
        self.path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        if stat.S_IMODE(self._found().st_mode) != FOLDER_MODE:
            self.path.chmod(FOLDER_MODE)

    def _found(self) -> os.stat_result:
        """What is at our place, which is looked at before each use: it must be ours."""
        found = self.path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(f"{self.path} is not a directory of its own; give another place")
        if found.st_uid != os.geteuid():
            raise PermissionError(f"{self.path} belongs to another user; give another place")
        return found

    def _place(self, name: str) -> Path:
        self._found()
        return self.path / name

    def changed(self) -> tuple[int, int] | None:
        """Something that differs after files came or went; None if the directory isn't there."""
        with suppress(OSError):
            found = self.path.stat()
            return found.st_ino, found.st_mtime_ns
        return None

    def files(self) -> list[StoredFile]:
        """All regular files of ours; empty where there is no directory."""
        try:
            self._found()
            with os.scandir(self.path) as found:
                return [file for entry in found if (file := _described(entry))]
        except FileNotFoundError:
            return []

    def usage(self) -> int:
        """Bytes of all files of ours."""
        return sum(file.size for file in self.files())

    def free(self) -> tuple[int, int]:
        """Bytes free for us on the volume, and its size."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def open(self, name: str) -> int:
        """A descriptor to read from. FileNotFoundError if it is gone, OSError if it is not a regular file."""
        descriptor = os.open(self._place(name), _READ)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(f"{name} is not a regular file")
        return descriptor

    def read(self, name: str, most: int) -> bytes:
        """The content. OSError if there is more than `most` bytes of it."""
        with os.fdopen(self.open(name), "rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise OSError(f"{name} is larger than {most} bytes")
        return data

    def write(self, key: str, ending: Ending, data: bytes) -> None:
        """Put a small file in its place, whole and on the disk, or not at all."""
        with self.partial(key, ending) as partial:
            partial.write(data)
            partial.publish()

    def partial(self, key: str, ending: Ending) -> Partial:
        """A new empty file that shall become `key.ending`."""
        for _ in range(TRIES):  # again only if a sweeper found it in the microseconds before it was locked
            name = f"{key}.{secrets.token_hex(4)}.part.{ending}"
            descriptor = os.open(self._place(name), _CREATE, FILE_MODE)
            if try_lock(descriptor) and os.fstat(descriptor).st_nlink:
                return Partial(self.path / name, self.path / f"{key}.{ending}", descriptor)
            os.close(descriptor)
        raise Busy(f"another process sweeps {self.path} too eagerly")

    def abandoned(self, file: StoredFile, ending: Ending | None = None) -> Partial | None:
        """A file whose writer is dead, now ours: to be published as `ending`, or to go when it is closed.

        None if its writer lives, or the file has gone.
        """
        with suppress(FileNotFoundError):
            descriptor = self.open(file.name)
            if try_lock(descriptor) and os.fstat(descriptor).st_nlink:
                target = self.path / f"{file.key}.{ending or file.ending}"
                return Partial(self.path / file.name, target, descriptor)
            os.close(descriptor)
        return None

    def append(self, key: str, ending: Ending, data: bytes) -> None:
        """Add to the end of a file, which is made when it is missing."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._place(f"{key}.{ending}"), flags, FILE_MODE)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)

    def remove(self, name: str) -> bool:
        """Whether there was something to remove."""
        try:
            self._place(name).unlink()
        except FileNotFoundError:
            return False
        return True

    def sync(self) -> None:
        """Have the names on the disk."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def lock(self, seconds: float) -> Iterator[None]:
        """Be the only one, of all processes and threads, to change what is stored. The lock ends with the process.

        Args:
            seconds: How long to wait for another.

        Raises:
            Busy: It took longer.
        """
        end = time.monotonic() + seconds
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._place(LOCK), flags, FILE_MODE)
        try:
            while not try_lock(descriptor):
                if time.monotonic() >= end:
                    raise Busy(f"another process has been changing {self.path} for over {seconds:g} s")
                time.sleep(LOCK_INTERVAL)
            yield
        finally:
            os.close(descriptor)


class Partial:
    """A file that belongs to the process that has it open, which others see by its lock.

    Args:
        path: Where it is.
        target: Where it shall be.
        descriptor: Open and locked; closed by `close`.
    """

    def __init__(self, path: Path, target: Path, descriptor: int) -> None:
        self.path = path
        self._target = target
        self._descriptor = descriptor
        self._published = False

    @property
    def size(self) -> int:
        """Bytes of it now."""
        return os.fstat(self._descriptor).st_size

    def write(self, data: bytes) -> None:
        """Add to its end."""
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def sha256(self) -> str:
        """Of its content, read back."""
        return sha256(self._descriptor)

    def publish(self) -> None:
        """Have the content on the disk, then give it its name, in place of an older file."""
        if os.fstat(self._descriptor).st_ino != self.path.stat().st_ino:
            raise OSError(f"{self.path.name} was replaced while it was written")
        os.fchmod(self._descriptor, FILE_MODE)
        # On macOS the drive may still hold it back; a power cut can then tear it, and the checksum will tell.
        os.fsync(self._descriptor)
        self.path = self.path.rename(self._target)
        self._published = True

    def remove(self) -> None:
        """Take it away, unless another has come in its place."""
        with suppress(FileNotFoundError):
            if os.fstat(self._descriptor).st_ino == self.path.stat().st_ino:
                self.path.unlink()

    def close(self) -> None:
        """Give up the lock; a file that wasn't published goes."""
        try:
            if not self._published:
                self.remove()
        finally:
            os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sha256(descriptor: int) -> str:
    """Of a whole open file; the GIL is free meanwhile, at about 1 GB/s."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    os.lseek(descriptor, 0, os.SEEK_SET)  # on macOS, who opens /dev/fd/N begins where this descriptor stands
    return digest


def try_lock(descriptor: int) -> bool:
    """Take the lock on an open file without waiting; it is given up when the descriptor is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _described(entry: os.DirEntry[str]) -> StoredFile | None:
    match = _NAME.fullmatch(entry.name)
    if match is None:
        return None
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None  # it went while we looked
    if not stat.S_ISREG(found.st_mode):
        return None
    key, partial, ending = match.groups()
    stamp = found.st_ino, found.st_mtime_ns, found.st_size
    return StoredFile(
        entry.name, key, cast("Ending", ending), partial is not None, found.st_size, found.st_mtime, stamp
    )
