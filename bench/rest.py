"""What a process costs that has nothing to do."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

SETTLE = 1.0
"""Seconds for a process to come to rest."""
IDLE_TARGET = 0.005
"""Share of one core that counts as none: the kernel counts in steps of 10 ms."""


@dataclass(frozen=True, slots=True)
class Rest:
    """A process at rest.

    Attributes:
        cpu: Seconds of CPU time per second.
        wakeups: Of its main thread, per second.
    """

    cpu: float
    wakeups: float


def at_rest(pid: int, seconds: float) -> Rest:
    """Watch a process do nothing; takes `SETTLE` longer."""
    process = psutil.Process(pid)
    time.sleep(SETTLE)
    cpu, switches, start = process.cpu_times(), process.num_ctx_switches(), time.perf_counter()
    time.sleep(seconds)
    passed = time.perf_counter() - start
    later, switches_later = process.cpu_times(), process.num_ctx_switches()
    used = (later.user - cpu.user) + (later.system - cpu.system)
    return Rest(used / passed, (switches_later.voluntary - switches.voluntary) / passed)


def memory(pid: int) -> int:
    """Resident bytes."""
    resident: int = psutil.Process(pid).memory_info().rss
    return resident
