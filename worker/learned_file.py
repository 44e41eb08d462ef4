"""What was learned, on disk: one small file for each model and template.

The file holds prompts: text that came from users, on their own disk, readable by them alone (0600 in a folder 0700).
It is replaced as a whole (temporary file, fsync, rename), in the background, at most every `SAVE_SECONDS`; so a crash
loses what the last seconds taught, never more. A file that can't be used is put aside with its reason, and learning
begins anew: nothing here is ever fatal.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from .learning import Ledger, Record

log = logging.getLogger(__name__)

VERSION = 1
SAVE_SECONDS = 5.0
"""Least time between two writes."""
CLOSE_SECONDS = 2.0
"""How long closing may wait for the last write."""
LARGEST_FILE = 16 << 20
"""Bytes; twice what a ledger may hold, so that anything larger isn't ours."""
MOST_FILES = 16
"""Files of other models that are kept, the latest."""


class Unusable(Exception):
    """A file that isn't what it should be; the message says why."""


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file's content. Another version, or another kind of file, doesn't decode."""

    format: Literal["stoker-learned"] = "stoker-learned"
    version: Literal[1] = 1
    model: str
    template: str
    record: Record


class LearnedFile:
    """A ledger, and the file that it is kept in.

    Args:
        folder: Where; made when there is something to write, private. It should hold nothing else.
        model: Id of the model.
        template: Digest of its chat template: what chats share depends on both.
        clock: Unix seconds.
        interval: Least seconds between two writes.
    """

    def __init__(
        self,
        folder: Path,
        model: str,
        template: str,
        *,
        clock: Callable[[], float] = time.time,
        interval: float = SAVE_SECONDS,
    ) -> None:
        binding = hashlib.sha256(f"{model}\n{template}".encode()).hexdigest()
        self.path = folder / f"{binding[:16]}.json"
        self.put_aside: str | None = None
        """Why what an earlier run learned isn't used; None where it is."""
        self.unwritten: str | None = None
        """Why the last write failed; it is tried again."""
        self._model = model
        self._template = template
        self._interval = interval
        self.ledger = self._loaded(clock())
        self._news = threading.Condition()
        self._changed = self._urgent = self._closed = False
        self._thread: threading.Thread | None = None
        self._files = threading.Lock()  # so that nothing older is written after `clear`

    def changed(self, *, urgent: bool = False) -> None:
        """The ledger has changed: write it, soon and in the background.

        Args:
            urgent: At once. A prefix was learned, and this worker's successor may be starting already.
        """
        with self._news:
            self._changed = True
            self._urgent |= urgent
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._write_on, name="learned", daemon=True)
                self._thread.start()
            self._news.notify()

    def clear(self) -> int:
        """Drop what was learned, of all models, from the disk too; returns how many prefixes of this one."""
        with self._files:
            count = self.ledger.clear()
            for path in self._all():
                with suppress(OSError):  # gone already, or not ours to remove: then it isn't ours to read either
                    path.unlink()
        self.changed()
        return count

    def close(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Write what is unwritten, and end. False if that takes longer than `timeout` seconds."""
        with self._news:
            self._closed = True
            self._news.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    # -- reading ---------------------------------------------------------------------------------------------

    def _loaded(self, now: float) -> Ledger:
        try:
            return Ledger(self._read(), now)
        except FileNotFoundError:
            return Ledger()
        except (OSError, Unusable) as error:
            self.put_aside = f"what was learned is put aside: {_told(error)}"
            log.warning("%s (%s)", self.put_aside, self.path)
            with suppress(OSError):  # it stays in place then, and the next write replaces it
                self.path.replace(self.path.with_suffix(".aside"))
            return Ledger()

    def _read(self) -> Record:
        data = _read_private(self.path)
        try:
            document = msgspec.json.decode(data, type=Document)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # A validation error names fields and types; a decoding error positions: neither quotes a prompt.
            raise Unusable(f"it is damaged or of another version: {error}") from None
        if (document.model, document.template) != (self._model, self._template):
            raise Unusable("it belongs to another model or chat template")
        return document.record

    # -- writing, on its own thread --------------------------------------------------------------------------

    def _write_on(self) -> None:
        while self._due():
            with self._files:
                self.unwritten = self._written()
            with self._news:
                if self.unwritten and not self._closed:
                    self._changed = True
                self._news.wait_for(lambda: self._closed or self._urgent, self._interval)

    def _written(self) -> str | None:
        """Write; returns what prevented it."""
        try:
            self._write()
        except OSError as error:
            # A full disk, or a folder made read-only: learning goes on in memory, and this is tried again.
            if self.unwritten is None:
                log.warning("what was learned can't be written to %s: %s", self.path, _told(error))
            return f"what was learned can't be written: {_told(error)}"
        return None

    def _due(self) -> bool:
        """Wait for a change; False when closed with nothing left to write."""
        with self._news:
            # No deadline: between two changes there is nothing to do, and the thread doesn't keep the process.
            self._news.wait_for(lambda: self._changed or self._closed)
            due, self._changed = self._changed, False
            self._urgent = False
            return due

    def _write(self) -> None:
        record = self.ledger.record()
        data = msgspec.json.encode(Document(model=self._model, template=self._template, record=record))
        folder = self.path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        try:
            _write_private(partial, data)
            partial.replace(self.path)
            _sync(folder)
        finally:
            partial.unlink(missing_ok=True)
        self._tidy()

    def _tidy(self) -> None:
        """Remove what killed workers left, and files of models not used for long."""
        for partial in self.path.parent.glob(f"{self.path.stem}.*.partial"):
            if not _writer_lives(partial):  # while a worker is replaced, there are two
                partial.unlink(missing_ok=True)
        others = sorted(self.path.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in others[:-MOST_FILES]:
            path.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        folder = self.path.parent
        return [path for pattern in ("*.json", "*.aside", "*.partial") for path in folder.glob(pattern)]


def _writer_lives(partial: Path) -> bool:
    """Whether the process whose number is in the name exists. Another one of that number spares the file for now."""
    number = partial.suffixes[-2].lstrip(".") if len(partial.suffixes) > 1 else ""
    if not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True


def _read_private(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise Unusable("it is not a regular file of this user")
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise Unusable(f"it is over {LARGEST_FILE >> 20} MiB long")
    return data


def _write_private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _told(error: Exception) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
