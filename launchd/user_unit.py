"""The daemon as a systemd user unit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .calling import call
from .job import Job, ManagerError, Plan, Standing, write_atomically
from .unit import NAME, unit

CALL_TIMEOUT = 90.0
"""Seconds for one call: a stop takes as long as the daemon's."""

MISTAKE = f" {os.EX_CONFIG}: a mistake in the configuration, which `systemctl --user status stoker` quotes"
"""What that exit code means, after systemd's own word for it, `exit-code`."""

NO_BUS = "the user's systemd can't be reached; log in as this user (not by su or sudo), or set XDG_RUNTIME_DIR"
"""What `systemctl --user` means by "Failed to connect to bus"."""


class UserUnit:
    """A `ServiceManager` on systemd's user instance.

    Args:
        systemctl: The program and its first arguments; tests give a fake.
        folder: Where the user's units are.
    """

    name = "systemd"

    def __init__(self, systemctl: Sequence[str] = ("systemctl", "--user"), folder: Path | None = None) -> None:
        self._systemctl = tuple(systemctl)
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        self.path = (folder or config / "systemd" / "user") / NAME

    def plan(self, job: Job) -> Plan:
        """See `ServiceManager`."""
        verbs = (("daemon-reload",), ("enable", NAME), ("restart", "--no-block", NAME))
        return Plan(self.path, unit(job), tuple((*self._systemctl, *verb) for verb in verbs))

    def install(self, job: Job) -> None:
        """See `ServiceManager`."""
        plan = self.plan(job)
        write_atomically(self.path, plan.text.encode())
        # A unit that has reached its start limit refuses every start until this; one that has not doesn't mind.
        self._call("reset-failed", NAME, check=False)
        for command in plan.commands:
            self._call(*command[len(self._systemctl) :])

    def uninstall(self) -> bool:
        """See `ServiceManager`."""
        if not self.path.exists():
            return False
        self._call("disable", "--now", NAME)
        self.path.unlink()
        self._call("daemon-reload")
        return True

    def start(self) -> None:
        """See `ServiceManager`. Not waited for: `start` would block until ready, and the caller can show progress."""
        self._demand_file()
        self._call("reset-failed", NAME, check=False)
        self._call("start", "--no-block", NAME)

    def stop(self) -> None:
        """See `ServiceManager`."""
        self._demand_file()
        self._call("stop", NAME)

    def standing(self) -> Standing:
        """See `ServiceManager`."""
        if not self.path.exists():
            return Standing(installed=False, loaded=False, words="not installed")
        shown = self._call("show", "--property=MainPID,ActiveState,SubState,Result,ExecMainStatus", NAME, check=False)
        facts = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        if "ActiveState" not in facts:
            return Standing(installed=True, loaded=None, words=shown)
        pid = facts.get("MainPID", "0")
        words = f"{facts['ActiveState']} ({facts.get('SubState', '?')})"
        if facts.get("Result", "success") != "success":
            words += f", {facts['Result']}" + (MISTAKE if facts.get("ExecMainStatus") == str(os.EX_CONFIG) else "")
        running = facts["ActiveState"] not in {"inactive", "failed"}
        return Standing(
            installed=True, loaded=running, pid=int(pid) if pid.isdecimal() and pid != "0" else None, words=words
        )

    def _demand_file(self) -> None:
        if not self.path.exists():
            raise ManagerError("Stoker is not installed as a service; run `stoker install`")

    def _call(self, *arguments: str, check: bool = True) -> str:
        command = [*self._systemctl, *arguments]
        reply = call(command, CALL_TIMEOUT, "without systemd, let what starts your programs run `stoker run`")
        if check and reply.code:
            cause = NO_BUS if "connect to bus" in reply.text.lower() else reply.line or "it says nothing"
            raise ManagerError(f"`{' '.join(command)}` failed with {reply.code}: {cause}")
        return reply.text
