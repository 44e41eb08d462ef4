"""The BLAS of the processes that are compared: all must have the same one."""

from __future__ import annotations

from pathlib import Path

from stoker.bench.children import clean_environment
from stoker.daemon.environment import find_openblas, worker_environment


def engine_environment() -> dict[str, str]:
    """What the daemon gives its worker, for processes that are compared with it: above all the same BLAS."""
    return worker_environment(clean_environment(), 0, find_openblas())


def preloaded(pid: int) -> bool | None:
    """Whether a process really has OpenBLAS in it; None where the system doesn't tell, or has no need of it."""
    try:
        return "openblas" in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    except OSError:
        return None  # macOS, or the process is gone
