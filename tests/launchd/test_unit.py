"""The systemd unit."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from stoker.launchd.job import Job
from stoker.launchd.unit import NAME, unit

JOB = Job(Path("/bin/sh"), ("run",), {"HOME": "/home/someone"}, Path("/tmp/service.log"), 35.0)


def setting(text: str, name: str) -> list[str]:
    """All values of a setting."""
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]


def test_restarts_and_ends() -> None:
    """It restarts a failure but not a wrong configuration, and outlives a worker that ran out of memory."""
    text = unit(JOB)

    assert setting(text, "Type") == ["notify"]
    assert setting(text, "Restart") == ["on-failure"]
    assert setting(text, "RestartPreventExitStatus") == ["78"]
    assert setting(text, "KillMode") == ["mixed"]
    assert setting(text, "OOMPolicy") == ["continue"]
    assert setting(text, "TimeoutStopSec") == ["50"]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", '"A=plain"'),
        ("two words", '"A=two words"'),
        ('a "quote"', r'"A=a \"quote\""'),
        ("back\\slash", r'"A=back\\slash"'),
        ("50%", '"A=50%%"'),
        ("two\nlines", r'"A=two\nlines"'),
    ],
)
def test_values_are_quoted(value: str, written: str) -> None:
    """A value reaches the service as it is, whatever is in it, and can't become another setting."""
    text = unit(replace(JOB, environment={"A": value}))

    assert setting(text, "Environment") == [written]


def test_command_is_quoted() -> None:
    """Blanks, dollars and percent signs in paths are no syntax."""
    text = unit(replace(JOB, program=Path("/my apps/$x%/stoker")))

    assert setting(text, "ExecStart") == ['"/my apps/$$x%%/stoker" "run"']


ANALYZE = shutil.which("systemd-analyze")


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze here")
def test_systemd_understands_it(tmp_path: Path) -> None:
    """Systemd's own verification has nothing to say; unknown keys would be errors."""
    path = tmp_path / NAME
    path.write_text(unit(replace(JOB, environment={"HOME": "/root", "A": 'x "y" 50% $z'})))
    done = subprocess.run(
        [str(ANALYZE), "--user", "verify", "--recursive-errors=one", str(path)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
