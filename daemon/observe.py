"""The daemon's and the worker's logs. Neither a full disk nor a flood takes the daemon down, or memory with it.

`daemon.log` has one JSON object a line, `worker.log` the worker's own output. Both are private and rotated.
No prompt text belongs there; what looks like it is struck out.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from ..ipc.control_messages import Readiness
from .steward import Snapshots

DAEMON_LOG, WORKER_LOG = "daemon.log", "worker.log"
ROTATE_BYTES, BACKUPS = 10_000_000, 5

FLOOD_BYTES_PER_SECOND, FLOOD_BURST = 200_000, 2_000_000
"""What a worker may write to its log on the average, and at once; the rest is counted, not written."""

PRIVATE = frozenset({"content", "messages", "prompt", "prompts", "system", "text"})
"""Event fields that could carry what people wrote."""

TRANSITIONS = "stoker.phase"
"""Name of the logger of transitions."""

LEVELS = {"failed": logging.ERROR, "backoff": logging.WARNING}
"""Severity of a phase; others are information."""


class LogFile(RotatingFileHandler):
    """A private, rotated file. While it can't be written, lines go to stderr, and it is tried again with each.

    Attributes:
        trouble: Why it can't be written now; None while all is well.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=ROTATE_BYTES, backupCount=BACKUPS, encoding="utf-8", delay=True)
        self.trouble: str | None = None

    def _open(self) -> TextIOWrapper:
        path = Path(self.baseFilename)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.fchmod(descriptor, 0o600)  # it may have been there before us
        return os.fdopen(descriptor, "a", encoding="utf-8")

    def flush(self) -> None:
        """Write what is buffered; where that succeeds, the trouble is over."""
        super().flush()
        if self.stream is not None:
            self.trouble = None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say once what is wrong; and the line is not lost."""
        error = sys.exc_info()[1]
        with suppress(OSError, ValueError):  # without a stderr either, there is nobody left to tell
            if self.trouble is None:
                sys.stderr.write(
                    f"stoker: cannot write {self.baseFilename} ({error}); its lines go here until it can be\n"
                )
            sys.stderr.write(self.format(record) + "\n")
        self.trouble = str(error)
        self._abandon()

    def _abandon(self) -> None:
        """Forget the stream and what is stuck in its buffer: it would raise for ever, or be written twice."""
        stream, self.stream = self.stream, None
        if stream is not None:
            with suppress(OSError):  # that it can't be flushed is why we are here
                stream.close()


@contextmanager
def logging_to(log_dir: Path, level: str, console: TextIO | None = None) -> Iterator[LogFile]:
    """Have structlog, and the libraries' warnings, written to `daemon.log` while the block runs.

    Args:
        log_dir: Made, private, if it is missing.
        level: Least severe events to write: `debug`, `info`, `warning` or `error`.
        console: Where warnings are shown too, pretty on a terminal; None shows none.
    """
    file = LogFile(log_dir / DAEMON_LOG)
    file.setFormatter(_formatter(structlog.processors.JSONRenderer()))
    handlers: list[logging.Handler] = [file]
    if console is not None:
        handlers.append(_console(console))
    root, ours = logging.getLogger(), logging.getLogger("stoker")
    before = root.handlers, ours.level
    root.handlers = handlers
    ours.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    try:
        yield file
    finally:
        structlog.reset_defaults()
        root.handlers = before[0]
        ours.setLevel(before[1])
        for handler in handlers:
            handler.close()


def strike_private(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: no field that could hold a prompt or an answer leaves the process."""
    return {name: "(struck out)" if name in PRIVATE else value for name, value in event.items()}


def _lead(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """What every event has comes first, so that people can read the file too."""
    return {**{name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}, **event}


_SHARED: list[Processor] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    strike_private,
]


def _formatter(renderer: Processor) -> logging.Formatter:
    last: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if isinstance(renderer, structlog.processors.JSONRenderer):
        last += [structlog.processors.format_exc_info, _lead]  # one line for a traceback too
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=_SHARED, processors=[*last, renderer])


def _console(stream: TextIO) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_formatter(structlog.dev.ConsoleRenderer(colors=stream.isatty())))
    handler.addFilter(lambda record: record.name != TRANSITIONS)  # `run` shows those itself
    return handler


class WorkerLog:
    """Writes the worker's output, line by line, as far as it is no flood. A `process.LineSink`.

    Attributes:
        dropped: Lines that a flood cost, since the start.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.dropped = 0
        self._file = LogFile(path)
        self._file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._clock = clock
        self._credit = float(FLOOD_BURST)
        self._at = clock()
        self._unsaid = 0

    def __call__(self, line: str) -> None:
        """Write a line, or count it as dropped."""
        now = self._clock()
        self._credit = min(FLOOD_BURST, self._credit + (now - self._at) * FLOOD_BYTES_PER_SECOND)
        self._at = now
        if len(line) > self._credit:
            self.dropped += 1
            self._unsaid += 1
            return
        self._credit -= len(line) + 1
        self._confess()
        self._write(line)

    @property
    def trouble(self) -> str | None:
        """Why the file can't be written now."""
        return self._file.trouble

    def close(self) -> None:
        """Say what was dropped last, and close the file."""
        self._confess()
        self._file.close()

    def _confess(self) -> None:
        if self._unsaid:
            self._write(f"({self._unsaid} lines dropped: the worker writes faster than {FLOOD_BYTES_PER_SECOND} B/s)")
            self._unsaid = 0

    def _write(self, line: str) -> None:
        self._file.handle(logging.makeLogRecord({"msg": line, "levelno": logging.INFO}))


def worker_log(log_dir: Path) -> WorkerLog:
    """The sink for the worker's output: `worker.log`."""
    return WorkerLog(log_dir / WORKER_LOG)


async def log_transitions(board: Snapshots) -> None:
    """Log each transition once, until cancelled. Progress within a phase is not one."""
    log = structlog.get_logger(TRANSITIONS)
    last: tuple[object, ...] = ()
    beside: tuple[int, str] | None = None
    failure: str | None = None
    async for now in board.watch():
        key = (now.generation, now.phase, now.since, now.warm, now.reason)
        if key != last:
            log.log(LEVELS.get(now.phase, logging.INFO), "phase", **_facts(now))
        heir = now.successor
        if heir is not None and (heir.generation, heir.phase) != beside:
            log.info("successor", generation=heir.generation, phase=heir.phase)
        if now.replacement_failed and now.replacement_failed != failure:
            log.warning("replacement failed", cause=now.replacement_failed, serving=now.generation)
        last, failure = key, now.replacement_failed
        beside = (heir.generation, heir.phase) if heir else None


def _facts(now: Readiness) -> dict[str, object]:
    facts: dict[str, object] = {"phase": now.phase, "generation": now.generation, "warm": now.warm}
    if now.reason:
        facts["reason"] = now.reason
    if now.retry_after is not None:
        facts["retry_after"] = now.retry_after
    if now.phase == "ready":
        facts["warmup"] = now.warmup.outcome
        facts["warmup_seconds"] = now.warmup.seconds
        facts["tokens_warm"] = sum(prefix.tokens_warm for prefix in now.warmup.prefixes)
    return facts
