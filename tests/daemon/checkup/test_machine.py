"""What the machine is found to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stoker.daemon.checkup.machine import Machine, findings

MAC = Machine("Darwin", "arm64", translated=False, cores=10, memory=32 << 30, python=(3, 12, 1), openblas=None)
LINUX = Machine("Linux", "x86_64", translated=False, cores=2, memory=24 << 30, python=(3, 11, 7), openblas=Path("/b"))


def levels(machine: Machine) -> dict[str, str]:
    """How bad each thing is."""
    return {finding.subject: finding.level for finding in findings(machine)}


def test_good_machines() -> None:
    """An Apple Silicon Mac, and a Linux with OpenBLAS, are fine; a Mac needs no OpenBLAS."""
    assert levels(MAC) == {"machine": "ok", "python": "ok"}
    assert levels(LINUX) == {"machine": "ok", "python": "ok", "blas": "ok"}


@pytest.mark.parametrize(
    ("machine", "subject", "words"),
    [
        (replace(MAC, processor="x86_64"), "machine", "MLX needs Apple Silicon"),
        (replace(MAC, processor="x86_64", translated=True), "machine", "runs translated"),
        (replace(LINUX, system="Windows"), "machine", "macOS and Linux"),
        (replace(MAC, python=(3, 9, 6)), "python", "3.9.6"),
    ],
)
def test_what_can_not_work(machine: Machine, subject: str, words: str) -> None:
    """What MLX can't run on is wrong, with a way out."""
    finding = next(finding for finding in findings(machine) if finding.subject == subject)

    assert (finding.level, words in finding.text) == ("wrong", True)
    assert finding.remedy


def test_missing_openblas_is_only_slow() -> None:
    """Without OpenBLAS it works, and the note says how to get it."""
    finding = list(findings(replace(LINUX, openblas=None)))[-1]

    assert finding.level == "note"
    assert "apt install" in (finding.remedy or "")


def test_this_machine() -> None:
    """What runs this test can be looked at."""
    assert Machine.here().memory > 0
    assert Machine.here().cores > 0
