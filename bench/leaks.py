"""What a process holds, and what it holds more of than before."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import psutil

from stoker.bench.report import Check, Json

MEMORY_GROWTH = 24 << 20
"""Bytes that count as flat: allocators keep what they had at the height of a storm."""
THREADS = 2
"""More than before that don't count: a pool makes them when they are first needed."""


@dataclass(frozen=True, slots=True)
class Held:
    """Of one process, now."""

    descriptors: int
    threads: int
    children: int
    zombies: int
    memory: int

    @classmethod
    def by(cls, pid: int) -> Held:
        """Look at a process."""
        process = psutil.Process(pid)
        children = process.children(recursive=True)
        zombies = sum(_is_zombie(child) for child in children)
        memory = process.memory_info().rss
        return cls(process.num_fds(), process.num_threads(), len(children) - zombies, zombies, memory)

    def data(self) -> Json:
        """For JSON."""
        return asdict(self)


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def checks(before: Held, after: Held) -> tuple[Check, ...]:
    """Whether anything leaked between two looks at a daemon at rest."""
    growth = (after.memory - before.memory) / (1 << 20)
    return (
        Check(
            "no descriptor leaked",
            f"{before.descriptors} before, {after.descriptors} after",
            after.descriptors <= before.descriptors,
        ),
        Check(
            "no thread leaked",
            f"{before.threads} before, {after.threads} after",
            after.threads <= before.threads + THREADS,
        ),
        Check(
            "one worker, no zombie",
            f"{after.children} processes, {after.zombies} zombies",
            after.children == before.children and not after.zombies,
        ),
        Check("memory is flat", f"{growth:+.1f} MiB", after.memory - before.memory <= MEMORY_GROWTH, target=True),
    )
