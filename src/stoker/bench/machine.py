"""On what is measured, and how quiet it is."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import psutil

from .report import Json

PACKAGES = ("stoker", "mlx", "mlx-lm", "anyio", "aiohttp", "msgspec")

LOOK = 2.0
"""Seconds in which the CPU is watched before anything is measured."""
QUIET_PERCENT = 10.0
"""Busier than this before the start, and the figures are marked."""


def versions() -> Json:
    """Python's, and those of the packages that matter, where they are installed."""
    return {"python": platform.python_version()} | dict(_installed())


def _installed() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)


def machine(openblas: Path | None) -> Json:
    """Hardware, system, load; `openblas` is what the daemon preloads. Takes `LOOK` seconds."""
    busy = psutil.cpu_percent(interval=LOOK)
    return {
        "cpu": _cpu(),
        "cores": _cores(),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30)),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "busy_before_percent": busy,
        "quiet": busy <= QUIET_PERCENT,
        "openblas": _openblas(openblas),
    }


def _cores() -> int:
    """Those that we may use; psutil knows where the system limits them."""
    allowed: list[int] = getattr(psutil.Process(), "cpu_affinity", list)()
    return len(allowed) or os.cpu_count() or 1


def _openblas(found: Path | None) -> str:
    if sys.platform != "linux":
        return "not needed"
    return f"{found.name}, preloaded in every process measured" if found else "not found; about 9 times slower"


def _cpu() -> str:
    if platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
