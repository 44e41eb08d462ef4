"""How fast the machine computes for a real worker, and what `stoker doctor` makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from tests.fakes.running_daemon import DEADLINE, RunningDaemon

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_doctor_compares_service_and_shell(tiny_llama: Path, tmp_path: Path) -> None:
    """Asked from any folder, `doctor` has the service and the shell measure, and tells both figures of both."""
    command = [sys.executable, "-m", "stoker.daemon", "doctor", "--json"]
    async with RunningDaemon(tiny_llama) as daemon:
        await daemon.ready()
        with anyio.fail_after(DEADLINE):
            done = await anyio.run_process(
                command, env=daemon.environ, cwd=tmp_path, check=False, stderr=subprocess.DEVNULL
            )
        findings = {each["subject"]: each for each in map(json.loads, done.stdout.splitlines())}

    # How they compare is no promise here: other tests run beside.
    assert min(findings["speed"]["figures"].values()) > 1e6, findings["speed"]
    assert set(findings["speed"]["figures"]) == {
        "service_bandwidth",
        "service_flops",
        "shell_bandwidth",
        "shell_flops",
    }
