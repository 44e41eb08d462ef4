"""What arrives at a notify socket."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.launchd import notify
from stoker.launchd.notify import Notifier


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[socket.socket]:
    """A manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(5)
        yield ear


def test_words_arrive_in_one_datagram(ear: socket.socket) -> None:
    """Assignments are newline-separated, as sd_notify(3) has it."""
    Notifier(ear.getsockname()).tell(notify.ready(), notify.status("ready,\n warm"))

    assert ear.recv(1000) == b"READY=1\nSTATUS=ready, warm"


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_abstract_address() -> None:
    """An address that begins with @ is in the abstract namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(f"\0stoker-test-{os.getpid()}")
        ear.settimeout(5)
        Notifier(f"@stoker-test-{os.getpid()}").tell(notify.alive())

        assert ear.recv(100) == b"WATCHDOG=1"


def test_nobody_reads(ear: socket.socket) -> None:
    """A manager that does not read, or has gone, holds nothing up; that it heard nothing is known."""
    notifier = Notifier(ear.getsockname())
    told = [notifier.tell(notify.alive()) for _ in range(10_000)]
    ear.close()

    assert (told[0], told[-1]) == (True, False)
    assert notifier.tell(notify.alive()) is False


@pytest.mark.parametrize(
    ("environ", "listening", "watchdog"),
    [
        ({}, False, None),
        ({"NOTIFY_SOCKET": "/run/x"}, True, None),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "30000000"}, True, 30.0),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, True, 30.0),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "2"}, True, None),
        ({"NOTIFY_SOCKET": "vsock:1:2", "WATCHDOG_USEC": "soon"}, False, None),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "0"}, True, None),
    ],
)
def test_environment(environ: dict[str, str], watchdog: float | None, *, listening: bool) -> None:
    """Who listens, and how often it wants a sign of life: as systemd sets it, and only for this process."""
    notifier = Notifier.of(environ, pid=1)

    assert (notifier.listening, notifier.watchdog) == (listening, watchdog)


def test_times() -> None:
    """Times are microseconds; a status is one line of bounded length."""
    assert notify.more_time(60) == "EXTEND_TIMEOUT_USEC=60000000"
    assert len(notify.status("x" * 1000)) == len("STATUS=") + notify.STATUS_LENGTH
    assert notify.reloading()[1].removeprefix("MONOTONIC_USEC=").isdecimal()
