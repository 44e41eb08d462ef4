"""What systemd is told of the daemon: sd_notify(3), one datagram at a time.

Without systemd everything here does nothing. Nothing is ever waited for: a manager that does not read must not hold
the daemon up.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

STATUS_LENGTH = 200
"""Characters of a status; systemd shows one line."""


class Notifier:
    """Speaks to the manager that started this process.

    Args:
        address: Of its socket: a path, or `@name` in the abstract namespace; None for no manager.
        watchdog: Seconds within which it wants a sign of life; None if it doesn't.
    """

    def __init__(self, address: str | None, watchdog: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address
        self.watchdog = watchdog

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int | None = None) -> Notifier:
        """From the environment: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`."""
        address = environ.get("NOTIFY_SOCKET", "")
        meant = environ.get("WATCHDOG_PID", "") in {"", str(os.getpid() if pid is None else pid)}
        usec = environ.get("WATCHDOG_USEC", "")
        watchdog = int(usec) / 1e6 if meant and usec.isdecimal() and int(usec) > 0 else None
        return cls(address if address.startswith(("/", "@")) else None, watchdog)

    @property
    def listening(self) -> bool:
        """Whether there is a manager to tell."""
        return self._address is not None

    def tell(self, *words: str) -> bool:
        """Send assignments, such as `READY=1`, in one datagram; says whether the manager has them.

        It reads a few at a time (`net.unix.max_dgram_qlen`, 10 by default), and does not when it is busy.
        """
        if self._address is None:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0)) as sender:
            sender.settimeout(0)
            try:
                sender.sendto("\n".join(words).encode(errors="replace"), self._address)
            except OSError:
                return False  # it is gone, or does not read now; the caller knows whether that matters
        return True


def ready() -> str:
    """The service is ready. It can't be taken back."""
    return "READY=1"


def stopping() -> str:
    """The service is on its way down."""
    return "STOPPING=1"


def reloading() -> tuple[str, str]:
    """The configuration is being read again; `ready` ends it. The time is what systemd 253 and later want."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"


def alive() -> str:
    """A sign of life for the watchdog."""
    return "WATCHDOG=1"


def more_time(seconds: float) -> str:
    """The start may take so much longer from now on; to be said again within it."""
    return f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}"


def status(text: str) -> str:
    """One line for people."""
    return f"STATUS={' '.join(text.split())[:STATUS_LENGTH]}"
