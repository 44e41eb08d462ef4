"""`stoker bench` with a real worker and a tiny model, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_everything_is_measured(tiny_llama: Path, tmp_path: Path) -> None:
    """Cold, warm, restored, speeds and restarts are there, all promises hold, nothing of the user's is touched."""
    command = [sys.executable, "-m", "stoker.daemon", "bench", "--tokens", "100", "--repeats", "1", "--json"]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*command, "--model", tiny_llama, "--plot", tmp_path / "a.svg"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.stdout, done.stderr
    sections = json.loads(done.stdout)["sections"]
    first, speed = sections["first_token"], sections["speed"]
    checks = [check for section in (first, speed) for check in section["checks"]]

    assert [check for check in checks if not check["ok"]] == []
    assert (len(checks), done.returncode) == (8, 0)
    assert [one["size"] for one in first["results"]] == [100]
    for one in first["results"]:
        assert set(one["cached_tokens_warm"]) == set(one["cached_tokens_restored"]) == set(one["prefix_tokens"])
        assert one["cached_tokens_cold"] == [0]
    assert set(speed) == {"prefill_100", "generation", "restart", "kill", "checks"}
    assert "cold: 100 tokens, 1 of 1" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.svg", "config.toml"]
