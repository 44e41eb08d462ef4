"""A real `systemd --user`, walled in: it sees, and could end, no process but those that it started.

Outside of a login session systemd would move every process of the root cgroup into a scope of its own. So it runs in
PID, mount and cgroup namespaces whose root is a leaf cgroup made for it, below that of the tests. Needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.fakes.running_daemon import DEADLINE

SYSTEMD = Path("/lib/systemd/systemd")

# /run/systemd/system is how programs know that systemd runs (sd_booted(3)). The shell is the namespace's init:
# systemd, as process 1, would take itself for the system's.
_INIT = f"""
mount -t cgroup2 cgroup2 /sys/fs/cgroup && mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system || exit 1
{SYSTEMD} --user --log-target=console &
wait
"""


class Unavailable(Exception):
    """It can't be had here; the message says what is missing."""


def waiting() -> Callable[..., None]:
    """`wait(why, error)`: a pause between two looks at what sets no event; raises when the deadline is over."""
    end = time.monotonic() + DEADLINE

    def wait(why: str, error: type[Exception] = TimeoutError) -> None:
        if time.monotonic() > end:
            raise error(why)
        time.sleep(0.02)

    return wait


class RealSystemd:
    """Runs programs where that systemd is the user's.

    Args:
        init: The namespaces' first process, by its pid outside.
        environ: A user's, as a login session would have it.
    """

    def __init__(self, init: int, environ: Mapping[str, str]) -> None:
        self._enter = ("nsenter", f"--target={init}", "--pid", "--mount", "--cgroup", "--ipc", "--")
        self._environ = dict(environ)
        self.home = Path(environ["HOME"])

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; its pids are those of the namespace."""
        return subprocess.run(
            [*self._enter, *map(str, command)],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE,
            check=False,
        )

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a program there, whose output is nobody's."""
        return subprocess.Popen(
            [*self._enter, *command],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stoker(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """The command line of this environment."""
        return self.run("stoker", *arguments)

    def systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`systemctl --user`."""
        return self.run("systemctl", "--user", *arguments)

    def shown(self) -> dict[str, str]:
        """What systemd has on the service."""
        lines = self.systemctl("show", "stoker.service").stdout.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def until(self, **properties: str) -> dict[str, str]:
        """What systemd has on the service, once these properties are so."""
        wait = waiting()
        while not properties.items() <= (shown := self.shown()).items():
            wait(f"{properties} did not come: {shown}")
        return shown

    def processes(self) -> list[str]:
        """Command lines of Stoker's own that run there."""
        listed = self.run("ps", "-eo", "args=").stdout.splitlines()
        return [line.strip() for line in listed if "stoker" in line]


@contextmanager
def real_systemd() -> Iterator[RealSystemd]:
    """One that is gone at the end of the block, with all that it started, its cgroups and its folder.

    Raises:
        Unavailable: There can be none on this machine.
    """
    if sys.platform != "linux" or not SYSTEMD.exists() or os.geteuid() != 0:
        raise Unavailable("a walled in systemd needs Linux, systemd and root")
    group = _own_cgroup() / f"stoker-test-{os.getpid()}"
    home = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
    group.mkdir()
    try:
        with _namespaces(group, environ := _environ(home), home / "systemd.log") as init:
            systemd = RealSystemd(init, environ)
            _wait_until_up(systemd, home / "systemd.log")
            yield systemd
    finally:
        shutil.rmtree(home)
        for folder in sorted(group.rglob("*/"), reverse=True):
            folder.rmdir()
        group.rmdir()


def _own_cgroup() -> Path:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    roots = [Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"]
    own = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
    if not roots or not own or not os.access(path := roots[0] / own[0].lstrip("/"), os.W_OK):
        raise Unavailable("there is no cgroup of version 2 in which a leaf could be made")
    return path


def _environ(home: Path) -> dict[str, str]:
    folders = {f"STOKER_{name}_DIR": str(home / name.lower()) for name in ("RUNTIME", "STATE", "CACHE", "LOG")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    session = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "PATH": path, "LANG": "C.UTF-8"}
    (home / "run").mkdir(mode=0o700)
    return session | folders | {"STOKER_PORT": "0"}


@contextmanager
def _namespaces(group: Path, environ: Mapping[str, str], log: Path) -> Iterator[int]:
    unshare = "unshare --pid --mount --cgroup --ipc --fork --kill-child --mount-proc"
    enter = f'echo $$ > "{group}/cgroup.procs" && exec {unshare} bash -c "$0"'
    with log.open("wb") as sink:
        process = subprocess.Popen(["/bin/bash", "-c", enter, _INIT], env=environ, stdout=sink, stderr=sink)
    try:
        wait = waiting()
        while not (children := psutil.Process(process.pid).children()):
            if process.poll() is not None:
                raise Unavailable(f"no namespaces: {log.read_text()}")
            wait("no namespaces")
        yield children[0].pid
    finally:
        process.kill()  # which ends the namespace's first process, and that all others
        process.wait(DEADLINE)
        wait = waiting()
        while "populated 1" in (group / "cgroup.events").read_text():
            wait("the kernel does not take the namespace's processes down")


def _wait_until_up(systemd: RealSystemd, log: Path) -> None:
    wait = waiting()
    while systemd.systemctl("is-active", "default.target").stdout.strip() != "active":
        wait(f"systemd does not come up: {log.read_text()}", Unavailable)
