"""The launchd property list of the daemon: launchd.plist(5), key by key.

Nothing here has been read by a Mac yet; `docs/macos.md` says what to try first.
"""

from __future__ import annotations

import plistlib
from typing import Any

from .job import Job

LABEL = "stoker.daemon"

DESCRIPTORS = 8192
"""Open files; a launchd agent's soft limit is 256 unless it asks for more."""

STOP_MARGIN = 15.0
"""Seconds between the daemon's own stop and launchd's KILL. Without the key, systems from macOS 12 on were seen to
kill after 5 s, and a killed daemon can't end its worker in order."""


def plist(job: Job) -> bytes:
    """The agent's property list."""
    return plistlib.dumps(keys(job), sort_keys=False)


def exit_timeout(job: Job) -> int:
    """Seconds between launchd's TERM and its KILL."""
    return int(job.stop_seconds + STOP_MARGIN)


def keys(job: Job) -> dict[str, Any]:
    """What is in it.

    * `KeepAlive` asks for a restart unless the daemon ended with 0, and nothing else: its members are ORed.
    * `ProcessType` Interactive: others throttle CPU and GPU; an eighth of the speed was seen in decoding.
    * `Umask` is a string, because launchd reads a number as decimal.
    * `AbandonProcessGroup` and `EnableTransactions` are left out: the defaults take leftovers along, and don't kill
      an idle daemon.
    """
    return {
        "Label": LABEL,
        "ProgramArguments": list(job.command),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 15,
        "ExitTimeOut": exit_timeout(job),
        "ProcessType": "Interactive",
        "Umask": "077",
        "WorkingDirectory": job.environment.get("HOME", "/"),
        "EnvironmentVariables": dict(job.environment),
        "StandardOutPath": str(job.log),
        "StandardErrorPath": str(job.log),
        "SoftResourceLimits": {"NumberOfFiles": DESCRIPTORS},
        "HardResourceLimits": {"NumberOfFiles": DESCRIPTORS},
        "LimitLoadToSessionType": ["Aqua", "Background"],
    }
