"""The worker's environment: the daemon's, without what is the daemon's alone, with what makes MLX fast."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from pathlib import Path

DAEMON_ONLY = (
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"),
    "STOKER_API_KEYS",
)
"""systemd's variables, by which a worker could speak to the service manager in the daemon's name; and the keys of the
HTTP API, with which it has nothing to do."""

OPENBLAS_NAMES = ("libopenblas.so.0", "libopenblasp.so.0", "libopenblas.so")
OPENBLAS_FOLDERS = (
    "/usr/lib/{machine}-linux-gnu",
    "/usr/lib/{machine}-linux-gnu/openblas-pthread",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "/opt/OpenBLAS/lib",
)
OPENBLAS_REMEDY = "install OpenBLAS (Debian: apt install libopenblas0-pthread; Fedora: dnf install openblas)"


def find_openblas() -> Path | None:
    """The system's OpenBLAS, if it has one where distributions put it. None on macOS, which needs none.

    MLX's Linux wheel links the reference BLAS; with OpenBLAS preloaded, float32 prefill was 9 times faster.
    """
    if sys.platform != "linux":
        return None
    for folder in OPENBLAS_FOLDERS:
        for name in OPENBLAS_NAMES:
            path = Path(folder.format(machine=platform.machine())) / name
            if path.exists():
                return path
    return None


def openblas_note(openblas: Path | None) -> tuple[str, ...]:
    """What `status` says where a worker on Linux has to do without."""
    if sys.platform != "linux" or openblas is not None:
        return ()
    return (f"no OpenBLAS found, so prefill on the CPU is about 9 times slower: {OPENBLAS_REMEDY}",)


def worker_environment(base: Mapping[str, str], generation: int, openblas: Path | None) -> dict[str, str]:
    """The environment of the worker of a generation.

    Args:
        base: The daemon's own.
        generation: Told to the worker for its log.
        openblas: A library to preload; None preloads nothing more than `base` does.
    """
    environ = {name: value for name, value in base.items() if name not in DAEMON_ONLY}
    environ["STOKER_GENERATION"] = str(generation)
    environ["PYTHONUNBUFFERED"] = "1"
    # Without it the tokenizers library warns, and may deadlock, in a process that uses threads.
    environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    preloaded = base.get("LD_PRELOAD", "").replace(":", " ").split()  # ld.so(8): spaces or colons
    if openblas is not None and str(openblas) not in preloaded:
        environ["LD_PRELOAD"] = " ".join((str(openblas), *preloaded))
    return environ
