"""Workers killed with SIGKILL at random instants of saving, restoring and evicting: nothing wrong is ever served.

`STOKER_TORTURE=300` chooses how many kills; what the workers do follows from the round's number, the instants do not:
they are the instrument.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

KILLS = int(os.environ.get("STOKER_TORTURE", "25"))
CHILD = Path(__file__).with_name("torn_child.py")
LONGEST_LIFE = 0.12
"""Seconds; a save takes some milliseconds, so that most kills come after several."""
MLX_EVERY, TWO_EVERY, EARLY_EVERY = 12, 4, 5
"""Rounds with real KV; with two workers at once, as at a replacement; killed perhaps before the store is open."""

pytestmark = pytest.mark.timeout(60 + 3 * KILLS)


@contextmanager
def worker(folder: Path, seed: int, kind: str, mode: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(CHILD), str(folder), str(seed), kind, mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def report_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the worker found when it opened the store."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"a worker did not start: {process.wait(10)}"
    report: dict[str, Any] = json.loads(line)
    return report


def checked(report: dict[str, Any], totals: Counter[str]) -> None:
    assert report["wrong"] == []
    assert report["over"] == 0
    assert report["fault"] is None
    assert report["faults"] == []
    totals.update({key: report[key] for key in ("served", "suspects", "damaged")})


def kill_one(folder: Path, number: int, instants: random.Random, totals: Counter[str]) -> None:
    """One round: a worker starts, is checked, works, and dies at some instant; perhaps another one beside it."""
    kind = "mlx" if number % MLX_EVERY == MLX_EVERY - 1 else "bytes"
    with worker(folder, number, kind, "on") as first:
        if number % EARLY_EVERY == 0:
            time.sleep(instants.uniform(0, 2 * LONGEST_LIFE))
        else:
            checked(report_of(first), totals)
            if number % TWO_EVERY == 1:
                with worker(folder, -number, "bytes", "on") as second:
                    checked_beside(report_of(second))
                    time.sleep(instants.uniform(0, LONGEST_LIFE))
            time.sleep(instants.uniform(0, LONGEST_LIFE))
        assert first.poll() is None, f"a worker ended by itself: {first.returncode}"


def checked_beside(report: dict[str, Any]) -> None:
    """Beside a living worker entries come and go, and its markers are its own; but nothing is wrong."""
    assert report["wrong"] == []
    assert report["over"] == 0


def test_nothing_wrong_survives_a_kill(tmp_path: Path) -> None:
    """After each kill the next worker starts, keeps its budget, and all it serves is bit for bit what was saved."""
    folder, instants, totals = tmp_path / "kv", random.Random(), Counter[str]()
    leftovers = 0
    for number in range(KILLS):
        kill_one(folder, number, instants, totals)
        leftovers += any(".part." in path.name for path in folder.iterdir()) if folder.exists() else 0
    for kind in ("bytes", "mlx"):
        with worker(folder, KILLS, kind, "once") as last:
            checked(report_of(last), totals)
            assert last.wait(10) == 0

    print(f"{KILLS} kills, {leftovers} in the middle of a write; {dict(totals)}")  # noqa: T201 - shown by pytest -s
    assert totals["served"] > KILLS
    assert totals["damaged"] == 0
    assert leftovers + totals["suspects"] > 0, "no kill met a write or a restore: the instrument is blunt"
    assert not [path for path in folder.iterdir() if ".part." in path.name]
