"""What workers occupy: whether there is room for two, and when one has grown too big.

The footprint is what the system holds a process to account for. On macOS that is the physical footprint, because the
resident size leaves out what Metal holds; elsewhere it is the resident size. A worker's descendants count with it.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import structlog

CHECK_EVERY = 10.0
"""Seconds between two looks at the worker's footprint; each reads the list of processes."""

CONFIRMED = 2
"""Looks in a row over the ceiling before anything is done: one may have fallen on a passing peak."""

PATIENCE = 60
"""Further looks after which it is tried again, where a replacement did not help."""

SHARE_OF_MACHINE = 0.9
"""Default ceiling: admission stops at 80 %, so beyond this something else holds memory."""

RESERVE = 0.1
"""Share of the machine's memory that stays free with two workers in it."""

log = structlog.get_logger("stoker.memory")


# -- what is ------------------------------------------------------------------------------------------------


def footprint(pid: int) -> int | None:
    """Bytes that a process occupies; None if it is gone."""
    if sys.platform == "darwin":
        return _physical_footprint(pid)
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def family_footprint(pid: int) -> int | None:
    """Bytes that a process and its descendants occupy; None if it is gone. Takes some milliseconds."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return None
    own = footprint(pid)
    return None if own is None else own + sum(footprint(child.pid) or 0 for child in children)


class _ResourceUsage(ctypes.Structure):
    """`struct rusage_info_v0` of <sys/resource.h>."""

    _fields_ = (
        ("uuid", ctypes.c_uint8 * 16),
        ("times_and_wakeups", ctypes.c_uint64 * 4),
        ("pageins", ctypes.c_uint64),
        ("wired_size", ctypes.c_uint64),
        ("resident_size", ctypes.c_uint64),
        ("phys_footprint", ctypes.c_uint64),
        ("start_and_exit", ctypes.c_uint64 * 2),
    )


def _physical_footprint(pid: int) -> int | None:
    usage = _ResourceUsage()
    failed = ctypes.CDLL(None).proc_pid_rusage(pid, 0, ctypes.byref(usage))
    return None if failed else int(usage.phys_footprint)


def machine_memory(root: Path = Path("/")) -> tuple[int, int]:
    """Bytes in all, and those to be had now: the machine's, or the control group's where that has less."""
    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    for limit, usage in (
        (root / "sys/fs/cgroup/memory.max", root / "sys/fs/cgroup/memory.current"),
        (root / "sys/fs/cgroup/memory/memory.limit_in_bytes", root / "sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        most, used = _number(limit), _number(usage)
        if most is not None and used is not None and most < total:
            total, available = most, min(available, max(0, most - used))
    return total, available


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # no such control, or `max`: no limit


# -- what follows -------------------------------------------------------------------------------------------


def has_room(needed: int, total: int, available: int) -> bool:
    """Whether another worker fits beside the one that occupies `needed` bytes."""
    return available >= needed + RESERVE * total


@dataclass
class MemoryWatch:
    """Decides when a worker has grown over the ceiling. Data and arithmetic only.

    Attributes:
        futile: The present worker was over the ceiling from its start: another one would be too.
    """

    futile: bool = False
    _generation: int = 0
    _looks_over: int = 0

    def judge(self, generation: int, occupied: int, ceiling: int) -> str | None:
        """Why the worker is to be replaced now, if it is."""
        if generation != self._generation:
            self._generation, self._looks_over, self.futile = generation, 0, occupied > ceiling
            return None
        self._looks_over = self._looks_over + 1 if occupied > ceiling else 0
        if self.futile or self._looks_over % PATIENCE != CONFIRMED:
            return None
        return f"its memory of {_mib(occupied)} is over the ceiling of {_mib(ceiling)}"


async def watch_memory(
    worker: Callable[[], tuple[int, int] | None],
    ceiling: Callable[[], int],
    recycle: Callable[[str], None],
    occupied: Callable[[int], int | None] = family_footprint,
) -> None:
    """Look at regular times, and have the worker replaced where it is over the ceiling; until cancelled.

    Args:
        worker: Generation and process of the worker that serves; None while none does.
        ceiling: Bytes, as of now.
        recycle: Told why.
        occupied: Bytes of a process; called on a thread.
    """
    watch = MemoryWatch()
    while True:
        await anyio.sleep(CHECK_EVERY)
        if (now := worker()) is None:
            continue
        generation, pid = now
        used = await anyio.to_thread.run_sync(occupied, pid)
        if used is None:
            continue
        was_futile = watch.futile
        why = watch.judge(generation, used, ceiling())
        if watch.futile and not was_futile:
            log.warning("memory", used=used, ceiling=ceiling(), remedy="a worker needs more from its start: raise it")
        if why is not None:
            recycle(why)


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"
