"""The daemon as a LaunchAgent: registered, replaced and removed so that doing it twice is the same as once.

launchd answers before it has done: a `bootout` that returned 0 may leave the label taken for as long as the old
daemon takes to stop, and a `bootstrap` in that time fails with 5. So each step looks at `print` instead of believing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from .agent import LABEL, exit_timeout, plist
from .calling import Reply
from .job import Job, ManagerError, Plan, Standing, write_atomically
from .launchctl import (
    BUSY,
    DRAINING,
    GONE,
    IN_PROGRESS,
    NO_SERVICE,
    Launchctl,
    Printed,
    explained,
    is_disabled,
    parsed,
)

POLL = 0.25
"""Seconds between two looks at what launchd has done."""
BOOTSTRAP_PATIENCE = 30.0
"""Seconds for a `bootstrap` that meets an old instance on its way out: the label was seen taken for 3 to 5 s."""
AFTER_KILL = 15.0
"""Seconds that launchd gets after its own KILL, to let the label go."""
DEFAULT_STOP = 65.0
"""Seconds to wait for an old instance whose own stop budget is not known."""


class LaunchAgent:
    """A `ServiceManager` on launchd.

    Args:
        launchctl: Runs launchctl.
        home: The user's.
        uid: The user's.
        now: Monotonic seconds.
        sleep: Waits so many seconds.
    """

    name = "launchd"

    def __init__(
        self,
        launchctl: Launchctl | None = None,
        home: Path | None = None,
        uid: int | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._launchctl = launchctl or Launchctl()
        self._uid = os.getuid() if uid is None else uid
        self._now = now
        self._sleep = sleep
        self.path = (home or Path.home()) / "Library" / "LaunchAgents" / f"{LABEL}.plist"

    # -- what is asked ---------------------------------------------------------------------------------------

    def plan(self, job: Job) -> Plan:
        """See `ServiceManager`."""
        domain = f"gui/{self._uid}"
        verbs = (
            ("bootout", f"{domain}/{LABEL}"),
            ("enable", f"{domain}/{LABEL}"),
            ("bootstrap", domain, str(self.path)),
            ("kickstart", f"{domain}/{LABEL}"),
        )
        return Plan(self.path, plist(job).decode(), tuple((*self._launchctl.program, *verb) for verb in verbs))

    def install(self, job: Job) -> None:
        """See `ServiceManager`."""
        if self._uid == 0:
            raise ManagerError("a launch agent belongs to a user; run `stoker install` as yourself, without sudo")
        domain = self._domain()
        try:
            job.log.parent.mkdir(parents=True, exist_ok=True)  # launchd does not start a job whose log it can't open
        except OSError as error:
            raise ManagerError(f"cannot make {job.log.parent}: {error.strerror}; check its owner") from error
        write_atomically(self.path, plist(job))
        self._remove(domain, exit_timeout(job) + AFTER_KILL)
        # Always: a `disabled` from long ago outlives an uninstall, and then bootstrap fails with 5.
        self._must("enable", f"{domain}/{LABEL}")
        self._bootstrap(domain)
        # Seen in the field: bootstrapped, and yet "not running, never exited". On a running job it does nothing.
        self._kickstart(domain)

    def uninstall(self) -> bool:
        """See `ServiceManager`. The label stays enabled: a disabled one would make the next install fail."""
        there = self._remove(self._domain(), DEFAULT_STOP) or self.path.exists()
        self.path.unlink(missing_ok=True)
        return there

    def start(self) -> None:
        """See `ServiceManager`."""
        self._demand_file()
        domain = self._domain()
        if self._printed(domain) is None:
            self._must("enable", f"{domain}/{LABEL}")
            self._bootstrap(domain)
        self._kickstart(domain)

    def stop(self) -> None:
        """See `ServiceManager`: the job is unloaded, because a kept-alive one would come back."""
        self._demand_file()
        self._remove(self._domain(), DEFAULT_STOP)

    def standing(self) -> Standing:
        """See `ServiceManager`."""
        installed = self.path.exists()
        reply = self._launchctl.call("print", f"{self._domain()}/{LABEL}")
        if reply.code == NO_SERVICE:
            return Standing(installed, loaded=False, words="not loaded")
        if reply.code:
            return Standing(installed, loaded=None, words=f"launchctl print: {reply.code} {reply.text}")
        printed = parsed(reply.text)
        ended = f"; last exit: {printed.last_exit}" if printed.last_exit else ""
        return Standing(installed, loaded=True, pid=printed.pid, words=f"{printed.state or 'state unknown'}{ended}")

    # -- steps -----------------------------------------------------------------------------------------------

    def _domain(self) -> str:
        """The login session's domain; over ssh, with nobody logged in at the screen, the user's own."""
        gui = f"gui/{self._uid}"
        return gui if self._launchctl.call("print", gui).code == 0 else f"user/{self._uid}"

    def _printed(self, domain: str) -> Printed | None:
        """What launchd knows of the job; None if it is not loaded.

        Raises:
            ManagerError: launchd can't tell.
        """
        reply = self._launchctl.call("print", f"{domain}/{LABEL}")
        if reply.code == NO_SERVICE:
            return None
        if reply.code:
            raise explained("print", reply, f"{domain}/{LABEL}")
        return parsed(reply.text)

    def _remove(self, domain: str, patience: float) -> bool:
        """Unload the job, and wait until its label is free; says whether it was loaded."""
        if self._printed(domain) is None:
            return False
        reply = self._launchctl.call("bootout", f"{domain}/{LABEL}")
        if reply.code not in {0, DRAINING, IN_PROGRESS, *GONE}:
            raise explained("bootout", reply, f"{domain}/{LABEL}")
        if not self._until(lambda: self._printed(domain) is None, patience):
            raise ManagerError(
                f"the old daemon has not ended after {patience:g} s; look at `stoker logs`, then try again"
            )
        return True

    def _bootstrap(self, domain: str) -> None:
        until = self._now() + BOOTSTRAP_PATIENCE
        while True:
            reply = self._launchctl.call("bootstrap", domain, str(self.path))
            if reply.code == 0 or (reply.code in BUSY and self._is_ours(self._printed(domain))):
                return
            if reply.code not in BUSY or self._now() >= until or self._disabled(domain):
                raise self._why_not(domain, reply)
            self._sleep(POLL * 4)

    def _is_ours(self, printed: Printed | None) -> bool:
        return printed is not None and printed.path == str(self.path)

    def _kickstart(self, domain: str) -> None:
        reply = self._launchctl.call("kickstart", f"{domain}/{LABEL}")
        if reply.code not in {0, IN_PROGRESS}:  # the latter: it runs
            raise self._why_not(domain, reply, "kickstart")

    def _why_not(self, domain: str, reply: Reply, verb: str = "bootstrap") -> ManagerError:
        service = f"{domain}/{LABEL}"
        besides = ""
        if self._disabled(domain):
            besides = f"the agent is disabled; run `launchctl enable {service}`"
        elif not self.path.exists():
            besides = f"{self.path} is gone; run `stoker install`"
        elif self.path.stat().st_uid != os.getuid():
            besides = f"{self.path} belongs to another user; delete it and run `stoker install` as yourself"
        return explained(verb, reply, service, besides)

    def _disabled(self, domain: str) -> bool:
        return is_disabled(self._launchctl.call("print-disabled", domain).text, LABEL)

    def _must(self, verb: str, target: str) -> None:
        reply = self._launchctl.call(verb, target)
        if reply.code:
            raise explained(verb, reply, target)

    def _demand_file(self) -> None:
        if not self.path.exists():
            raise ManagerError("Stoker is not installed as a service; run `stoker install`")

    def _until(self, condition: Callable[[], bool], patience: float) -> bool:
        until = self._now() + patience
        while not condition():
            if self._now() >= until:
                return False
            self._sleep(POLL)
        return True
