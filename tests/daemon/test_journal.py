"""The log's last lines in memory."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import structlog

from stoker.daemon.journal import LINE_LIMIT, LINES_KEPT, Journal
from stoker.daemon.observe import logging_to


def test_lines_are_those_of_the_log(tmp_path: Path) -> None:
    """What Stoker's loggers write to the file is there, fields that could hold a prompt struck out."""
    journal = Journal()
    with logging_to(tmp_path, "info", io.StringIO()), journal.listening():
        structlog.get_logger("stoker.test").warning("something", generation=3, prompt="Dear diary")
        structlog.get_logger("stoker.test").debug("too fine")
        logging.getLogger("stoker.http").info("bad request from %s", "127.0.0.1")
    logging.getLogger("stoker.test").warning("after the end")

    lines = journal.since()
    assert [(line.level, line.event) for line in lines] == [
        ("warning", "something"),
        ("info", "bad request from 127.0.0.1"),
    ]
    assert lines[0].facts == "generation=3 prompt=(struck out)"
    assert "Dear" not in str(lines)


def test_requests_are_left_out(tmp_path: Path) -> None:
    """The line for each request, at debug, would push everything else out."""
    journal = Journal()
    with logging_to(tmp_path, "debug"), journal.listening():
        structlog.get_logger("stoker.requests").debug("request", number=1)

    assert journal.since() == []


def test_journal_is_bounded(tmp_path: Path) -> None:
    """So many lines are kept, each of bounded length; who knows a number gets what came since."""
    journal = Journal()
    with logging_to(tmp_path, "info"), journal.listening():
        for number in range(LINES_KEPT + 5):
            structlog.get_logger("stoker.test").info("x" * 1000, number=number, more="y" * 1000)

    lines = journal.since()
    assert len(lines) == LINES_KEPT
    assert max(len(line.event) + len(line.facts) for line in lines) <= 2 * LINE_LIMIT
    assert [line.number for line in journal.since(LINES_KEPT + 3)] == [LINES_KEPT + 4, LINES_KEPT + 5]
