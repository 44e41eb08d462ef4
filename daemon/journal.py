"""The last lines of the daemon's log, for the status page.

It hears what the log file hears, after private fields were struck out (see `observe`), and keeps it in memory.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import msgspec

LINES_KEPT = 120
LINE_LIMIT = 400
"""Characters of a line's facts."""

_LEFT_OUT = frozenset({"event", "level", "logger", "timestamp", "exc_info", "_record", "_from_structlog"})
"""Fields that have a place of their own, or none on a page."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the log; `facts` are its other fields, as `name=value`."""

    number: int
    at: float
    level: str
    event: str
    facts: str = ""


class Journal(logging.Handler):
    """Keeps the last lines. Those of single requests are left out: the page shows those better."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = count(1)
        self._lines: deque[Line] = deque(maxlen=LINES_KEPT)
        self.addFilter(lambda record: record.name != "stoker.requests")

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        fields = record.msg if isinstance(record.msg, dict) else {"event": record.getMessage().partition("\n")[0]}
        facts = " ".join(f"{name}={value}" for name, value in fields.items() if name not in _LEFT_OUT)
        self._lines.append(
            Line(
                number=next(self._numbers),
                at=record.created,
                level=record.levelname.lower(),
                event=str(fields.get("event", ""))[:LINE_LIMIT],
                facts=facts[:LINE_LIMIT],
            )
        )

    def since(self, number: int = 0) -> list[Line]:
        """Those that came after the line of this number, the oldest first."""
        return [line for line in self._lines if line.number > number]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear what Stoker's loggers say while the block runs."""
        logger = logging.getLogger("stoker")
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)
