"""The machine and the Python that runs on it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from ..environment import OPENBLAS_REMEDY, find_openblas
from .finding import Finding, gib, note, ok, wrong


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of it.

    Attributes:
        system: `Darwin`, `Linux` or another.
        processor: As `uname -m` says.
        translated: This Python runs under Rosetta.
        cores: Usable ones.
        memory: Bytes.
        python: Version.
        openblas: The library that a worker on Linux would use.
    """

    system: str
    processor: str
    translated: bool
    cores: int
    memory: int
    python: tuple[int, int, int]
    openblas: Path | None

    @classmethod
    def here(cls) -> Self:
        """This one."""
        return cls(
            system=platform.system(),
            processor=platform.machine(),
            translated="ARM64" in platform.version() and platform.machine() == "x86_64",
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            memory=psutil.virtual_memory().total,
            python=sys.version_info[:3],
            openblas=find_openblas(),
        )


def findings(machine: Machine) -> Iterator[Finding]:
    """Whether MLX can run here, and well."""
    yield _machine(machine)
    version = ".".join(map(str, machine.python))
    if machine.python < (3, 11, 0):
        yield wrong("python", f"version {version}", "install Python 3.11 or newer, and Stoker into it")
    else:
        yield ok("python", f"version {version}, {sys.executable}")
    if machine.system == "Linux":
        yield _blas(machine.openblas)


def _machine(machine: Machine) -> Finding:
    words = f"{machine.system} {machine.processor}, {machine.cores} cores, {gib(machine.memory)}"
    if machine.translated:
        remedy = "install a Python for arm64 (Homebrew's in /opt/homebrew is one), and Stoker into it"
        return wrong("machine", f"{words}; this Python is for Intel and runs translated, which MLX can't", remedy)
    if machine.system == "Darwin" and machine.processor != "arm64":
        return wrong("machine", f"{words}; MLX needs Apple Silicon", "run Stoker on a Mac with an M processor")
    if machine.system not in {"Darwin", "Linux"}:
        return wrong("machine", f"{words}; MLX runs on macOS and Linux", "run Stoker there")
    return ok("machine", words)


def _blas(openblas: Path | None) -> Finding:
    if openblas is None:
        return note("blas", "no OpenBLAS found, so prefill on the CPU is about 9 times slower", OPENBLAS_REMEDY)
    return ok("blas", f"{openblas}, given to the worker")
