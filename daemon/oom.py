"""How often the kernel has killed for want of memory, where it tells: by what a SIGKILL from nowhere is explained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ROOT = Path("/")


def oom_kills(root: Path = ROOT) -> int | None:
    """Kills for want of memory so far, in our control group and on the whole machine; None where nobody counts.

    Only a rise means something: a kill in the group is counted on the machine too. macOS counts nothing that a
    process may read.

    Args:
        root: Where the system's files are; tests give a folder.
    """
    counts = [count for path in _counters(root) if (count := _read(path)) is not None]
    return sum(counts) if counts else None


def _counters(root: Path) -> Sequence[Path]:
    """Files with an `oom_kill` line: cgroup v2, cgroup v1, the machine."""
    paths = [root / "proc/vmstat"]
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return paths
    for line in groups:
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        below = group.strip("/")
        if not controllers:
            paths.append(root / "sys/fs/cgroup" / below / "memory.events")
        elif controllers == "memory":
            paths.append(root / "sys/fs/cgroup/memory" / below / "memory.oom_control")
    return paths


def _read(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None  # not that kind of system, or not ours to read
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdigit():
            return int(value)
    return None
