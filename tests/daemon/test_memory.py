"""What workers occupy, and what follows from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from stoker.daemon.memory import (
    CONFIRMED,
    PATIENCE,
    MemoryWatch,
    family_footprint,
    footprint,
    has_room,
    machine_memory,
    watch_memory,
)

pytestmark = pytest.mark.anyio

MIB = 1 << 20


def test_footprint_is_what_is_held() -> None:
    """A process is held to account for what it has touched, its children for theirs; a dead one for nothing."""
    code = "b = bytearray(b'x') * (64 << 20); print('held', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    try:
        own, childs, family = footprint(os.getpid()), footprint(child.pid), family_footprint(os.getpid())
        assert own is not None
        assert childs is not None
        assert family is not None
        assert childs > 64 * MIB
        assert family >= own / 2 + childs
    finally:
        child.communicate()
    assert footprint(child.pid) is None
    assert family_footprint(child.pid) is None


def test_memory_of_this_machine() -> None:
    """There is some, and not more to be had than there is."""
    total, available = machine_memory()

    assert 0 < available <= total


@pytest.mark.parametrize(
    ("files", "limited"),
    [
        pytest.param({"memory.max": "104857600\n", "memory.current": "31457280\n"}, True, id="cgroup v2"),
        pytest.param({"memory.max": "max\n", "memory.current": "31457280\n"}, False, id="without limit"),
        pytest.param(
            {"memory/memory.limit_in_bytes": "104857600", "memory/memory.usage_in_bytes": "31457280"},
            True,
            id="cgroup v1",
        ),
        pytest.param({}, False, id="no control group"),
    ],
)
def test_control_group_limits_what_there_is(tmp_path: Path, files: dict[str, str], limited: bool) -> None:
    """In a control group with a limit, its limit and what is left of it count instead of the machine's."""
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    total, available = machine_memory(tmp_path)
    assert (total, available <= 70 * MIB) == (100 * MIB, True) if limited else total == machine_memory()[0]


@pytest.mark.parametrize(
    ("needed", "available", "room"),
    [(4000, 5000, True), (4001, 5000, False), (0, 999, False), (9000, 10_000, True)],
)
def test_room_leaves_a_reserve(needed: int, available: int, room: bool) -> None:
    """There is room for another worker if a tenth of the machine stays free with it."""
    assert has_room(needed, 10_000, available) is room


def looks(watch: MemoryWatch, generation: int, *occupied: int) -> list[str | None]:
    return [watch.judge(generation, one * MIB, 1000 * MIB) for one in occupied]


def test_growth_over_the_ceiling_is_a_reason() -> None:
    """A worker that has grown over the ceiling, and stays there, is to be replaced; a passing peak is none."""
    watch = MemoryWatch()

    told = looks(watch, 1, 800, 1200, 900, 1200, 1201)
    assert told == [None, None, None, None, "its memory of 1201 MiB is over the ceiling of 1000 MiB"]


def test_worker_that_is_too_big_from_its_start_is_left_alone() -> None:
    """Where a fresh worker is over the ceiling already another one would be too: nothing is replaced in a circle."""
    watch = MemoryWatch()

    assert looks(watch, 1, *[1200] * 300) == [None] * 300
    assert watch.futile


def test_replacement_that_did_not_come_is_tried_again_later() -> None:
    """If the worker is still there, and still over the ceiling, it is not asked at each look."""
    watch = MemoryWatch()
    asked = [index for index, why in enumerate(looks(watch, 1, 800, *[1200] * 130)) if why]

    assert asked == [CONFIRMED, CONFIRMED + PATIENCE, CONFIRMED + 2 * PATIENCE]


def test_successor_begins_anew() -> None:
    """Each generation is judged from its own start."""
    watch = MemoryWatch()
    looks(watch, 1, 800, 1200)

    assert looks(watch, 2, 800, 1200, 900) == [None, None, None]


async def test_worker_over_the_ceiling_is_recycled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch looks at whichever worker serves, and has it replaced with the reason."""
    monkeypatch.setattr("stoker.daemon.memory.CHECK_EVERY", 0.001)
    sizes = iter([800, 1200, 1300])
    workers = iter([None, (1, 77), (1, 77), (1, 77)])
    told: list[str] = []
    done = anyio.Event()

    def recycle(why: str) -> None:
        told.append(why)
        done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(
            watch_memory,
            lambda: next(workers, None),
            lambda: 1000 * MIB,
            recycle,
            lambda pid: next(sizes) * MIB if pid == 77 else None,
        )
        with anyio.fail_after(30):
            await done.wait()
        tasks.cancel_scope.cancel()

    assert told == ["its memory of 1300 MiB is over the ceiling of 1000 MiB"]
