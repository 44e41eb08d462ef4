"""What the kernel counts of its kills for want of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.daemon.oom import oom_kills


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "count"),
    [
        pytest.param({}, None, id="nobody counts"),
        pytest.param({"proc/vmstat": "nr_free_pages 7\noom_kill 3\n"}, 3, id="the machine"),
        pytest.param({"proc/vmstat": "nr_free_pages 7\n"}, None, id="an old kernel"),
        pytest.param(
            {"proc/self/cgroup": "0::/user/app\n", "sys/fs/cgroup/user/app/memory.events": "oom 2\noom_kill 5\n"},
            5,
            id="the control group",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/job\n0::/\n",
                "sys/fs/cgroup/memory/job/memory.oom_control": "under_oom 0\noom_kill 1\n",
                "proc/vmstat": "oom_kill 2\n",
            },
            3,
            id="the old control group, and the machine",
        ),
        pytest.param({"proc/self/cgroup": "nonsense", "proc/vmstat": "oom_kill many\n"}, None, id="nonsense"),
    ],
)
def test_count(tmp_path: Path, files: dict[str, str], count: int | None) -> None:
    """Kills are counted where the kernel tells them, and nowhere is not none."""
    for name, text in files.items():
        write(tmp_path, name, text)

    assert oom_kills(tmp_path) == count


def test_count_of_this_machine() -> None:
    """Whatever this system tells, it never falls."""
    first, second = oom_kills(), oom_kills()

    assert (first is None and second is None) or (first is not None and second is not None and second >= first)
