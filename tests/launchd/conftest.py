"""A fake launchd, running, and jobs for it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from stoker.launchd.agent import LABEL
from stoker.launchd.calling import Reply
from stoker.launchd.job import Job
from stoker.launchd.launch_agent import LaunchAgent
from stoker.launchd.launchctl import Launchctl
from tests.fakes import fake_launchd

SECOND = 0.03
"""How long a second of the fake launchd lasts."""


class QuickLaunchctl(Launchctl):
    """Asks the fake launchd without a process in between."""

    def __init__(self, folder: Path) -> None:
        super().__init__((sys.executable, fake_launchd.__file__, "ctl", str(folder)))
        self._folder = folder

    def call(self, *arguments: str) -> Reply:
        """See `Launchctl`."""
        return Reply(*fake_launchd.ask(self._folder, arguments))


class Mac:
    """A machine with a launchd: a home, a job to install, and looks at what became of it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        command = [sys.executable, fake_launchd.__file__, "serve", str(home)]
        self._serving = subprocess.Popen(command, stderr=subprocess.PIPE)
        self.launchctl = QuickLaunchctl(home)
        until = time.monotonic() + 20
        while not (home / fake_launchd.SOCKET).exists():
            assert self._serving.poll() is None, self._serving.communicate()
            assert time.monotonic() < until
            time.sleep(0.005)  # another process's start can only be polled

    def agent(self, uid: int = 501) -> LaunchAgent:
        """A new installer, as each run of `stoker install` has one; its seconds are the fake's."""
        return LaunchAgent(
            self.launchctl,
            self.home,
            uid,
            now=lambda: time.monotonic() / SECOND,
            sleep=lambda seconds: time.sleep(seconds * SECOND),
        )

    def behaves(self, **knobs: Any) -> None:
        """Set how launchd behaves from now on."""
        (self.home / fake_launchd.KNOBS).write_text(json.dumps({"second": SECOND, **knobs}))

    def job(self, script: str = "exec sleep 600", *, stop_seconds: float = 30.0) -> Job:
        """A job that runs a shell script."""
        program = self.home / "stoker"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return Job(program, ("run",), {"HOME": str(self.home)}, self.home / "logs" / "service.log", stop_seconds)

    def pid(self, besides: int | None = None) -> int:
        """Of the running job, once it runs; another one than `besides`."""
        until = time.monotonic() + 20
        while (pid := self.agent().standing().pid) in {None, besides}:
            assert time.monotonic() < until, self.agent().standing()
            time.sleep(0.01)  # launchd tells of nothing by itself
        assert pid is not None
        return pid

    def disable(self) -> None:
        """What `launchctl unload -w` of an old guide leaves behind."""
        assert self.launchctl.call("disable", f"gui/501/{LABEL}").code == 0

    def close(self) -> None:
        """End launchd with all its jobs; nothing may be left."""
        children = psutil.Process(self._serving.pid).children(recursive=True)
        self._serving.send_signal(signal.SIGTERM)
        self._serving.communicate(timeout=20)
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive


@pytest.fixture
def mac() -> Iterator[Mac]:
    """A Mac with somebody logged in."""
    home = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))  # a socket's path has a limit
    mac = Mac(home)
    mac.behaves()
    try:
        yield mac
    finally:
        mac.close()
        shutil.rmtree(home)
