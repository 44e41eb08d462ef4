"""The property list."""

from __future__ import annotations

import plistlib
from pathlib import Path

from stoker.launchd.agent import plist
from stoker.launchd.job import Job

JOB = Job(
    Path("/opt/stoker/bin/stoker"),
    ("run", "--port", "8080"),
    {"HOME": "/Users/someone", "PATH": "/usr/bin"},
    Path("/Users/someone/Library/Logs/stoker/service.log"),
    35.0,
)


def test_property_list() -> None:
    """What launchd is told, key by key."""
    assert plistlib.loads(plist(JOB)) == {
        "Label": "stoker.daemon",
        "ProgramArguments": ["/opt/stoker/bin/stoker", "run", "--port", "8080"],
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 15,
        "ExitTimeOut": 50,
        "ProcessType": "Interactive",
        "Umask": "077",
        "WorkingDirectory": "/Users/someone",
        "EnvironmentVariables": {"HOME": "/Users/someone", "PATH": "/usr/bin"},
        "StandardOutPath": "/Users/someone/Library/Logs/stoker/service.log",
        "StandardErrorPath": "/Users/someone/Library/Logs/stoker/service.log",
        "SoftResourceLimits": {"NumberOfFiles": 8192},
        "HardResourceLimits": {"NumberOfFiles": 8192},
        "LimitLoadToSessionType": ["Aqua", "Background"],
    }


def test_launchd_waits_longer_than_the_daemon_stops() -> None:
    """Launchd's KILL comes after the daemon has had its own whole time to stop."""
    assert plistlib.loads(plist(JOB))["ExitTimeOut"] > JOB.stop_seconds
