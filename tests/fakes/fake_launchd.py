"""A launchd for tests: keeps domains, jobs and overrides, answers like launchctl, and really runs the jobs' programs.

    fake_launchd.py serve FOLDER        the manager; its socket and its log are in the folder
    fake_launchd.py ctl FOLDER VERB …   launchctl

What it does of its own accord comes from `knobs.json` in the folder, read at each call (see `Knobs`). One of its
seconds lasts `Knobs.second` real ones. Error numbers and texts are those of macOS, collected from the field; no Mac
was asked.
"""

from __future__ import annotations

import json
import os
import plistlib
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SOCKET = "launchd.sock"
KNOBS = "knobs.json"


@dataclass
class Knobs:
    """How this launchd behaves."""

    gui: bool = True
    """Somebody is logged in at the screen; else only `user/UID` is there."""
    session: bool = True
    """The user has any session at all."""
    second: float = 0.02
    bootstrap_errors: list[int] = field(default_factory=list)
    """Answers of the next bootstraps, before the real ones."""
    loaded_code: int = 5
    """What a bootstrap of a loaded label answers: 5, 17 or 37 were seen."""
    idle: bool = False
    """Bootstrap loads, and starts nothing until a kickstart."""
    forbidden: bool = False
    """The user has switched the item off: a bootstrapped job is gone at once."""
    label_lag: float = 0.0
    """Seconds for which a label stays taken after its process has ended."""
    print_error: int = 0

    @classmethod
    def read(cls, folder: Path) -> Knobs:
        """From the folder; defaults without a file."""
        path = folder / KNOBS
        return cls(**json.loads(path.read_text())) if path.exists() else cls()


TEXTS = {
    3: "No such process",
    5: "Input/output error\nTry re-running the command as root for richer errors.",
    17: "File exists",
    36: "Operation now in progress",
    37: "Operation already in progress",
    119: "Service is disabled",
    122: "Path had bad ownership/permissions",
    125: "Domain does not support specified action",
    134: "Service cannot load in requested session",
    155: "Service is quarantined",
}


class Refused(Exception):
    """A verb fails with a number."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text or TEXTS.get(code, "failed"))
        self.code = code


class Job:
    """A loaded job: its process is started, kept alive, and ended by threads of its own."""

    def __init__(self, path: Path, keys: dict[str, Any], knobs: Knobs) -> None:
        self.path = path
        self.keys = keys
        self.second = knobs.second
        self.lag = knobs.label_lag
        self.process: subprocess.Popen[bytes] | None = None
        self.runs = 0
        self.last_exit = "(never exited)"
        self.state = "not running"
        self.leaving = threading.Event()
        self.gone = threading.Event()

    def start(self) -> None:
        """Run it, and again as KeepAlive says."""
        if self.state == "not running":
            self.state = "spawn scheduled"
            threading.Thread(target=self._keep_alive, daemon=True).start()

    def _keep_alive(self) -> None:
        while not self.leaving.is_set():
            began = time.monotonic()
            code = self._run()
            if self.leaving.is_set() or code == 0:
                break
            self.state = "spawn scheduled"
            least = self.keys.get("ThrottleInterval", 10) * self.second
            self.leaving.wait(max(0.0, began + least - time.monotonic()))
        self.state = "not running"
        if self.leaving.is_set():
            time.sleep(self.lag * self.second)
            self.gone.set()

    def _run(self) -> int:
        log = Path(self.keys["StandardErrorPath"])
        own = {"XPC_SERVICE_NAME": self.keys["Label"], "PATH": "/usr/bin:/bin"}
        self.runs += 1
        with log.open("ab") as output:
            try:
                self.process = subprocess.Popen(
                    self.keys["ProgramArguments"],
                    env=own | self.keys["EnvironmentVariables"],
                    cwd=self.keys["WorkingDirectory"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            except OSError:
                self.last_exit = "78: EX_CONFIG"
                return 78
        self.state = "running"
        code = self.process.wait()
        self.last_exit = str(code) if code >= 0 else f"{signal.strsignal(-code)}: {-code}"
        self.process = None
        return code

    def leave(self) -> None:
        """End it: TERM, then KILL after ExitTimeOut."""
        self.leaving.set()
        process = self.process
        if process is None:
            self.gone.set()
            return
        self.state = "SIGTERMed"
        process.terminate()
        threading.Thread(target=self._insist, args=(process,), daemon=True).start()

    def _insist(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(self.keys.get("ExitTimeOut", 5) * self.second)
        except subprocess.TimeoutExpired:
            self.state = "SIGKILLed"
            os.killpg(process.pid, signal.SIGKILL)

    def printed(self) -> str:
        """What `launchctl print` says of it."""
        pid = f"\tpid = {self.process.pid}\n" if self.process else ""
        signalled = ": " in self.last_exit and not self.last_exit.startswith("78")
        ended = "last terminating signal" if signalled else "last exit code"
        return (
            f"gui/501/{self.keys['Label']} = {{\n\tactive count = 1\n\tpath = {self.path}\n\ttype = LaunchAgent\n"
            f"\tstate = {self.state}\n\n\tprogram = {self.keys['ProgramArguments'][0]}\n"
            f"\tendpoints = {{\n\t\tstate = active\n\t\tpid = 1\n\t}}\n\truns = {self.runs}\n{pid}"
            f"\t{ended} = {self.last_exit}\n\texit timeout = {self.keys.get('ExitTimeOut', 5)}\n}}"
        )


class FakeLaunchd:
    """The manager's state, and its verbs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs: dict[str, Job] = {}
        self._disabled: dict[str, bool] = {}
        self._lock = threading.Lock()

    def obey(self, arguments: list[str]) -> tuple[int, str]:
        """One launchctl call: exit status and text."""
        knobs = Knobs.read(self._folder)
        verb, *rest = arguments
        with self._lock:
            self._forget_gone()
            try:
                return 0, str(getattr(self, verb.replace("-", "_"))(knobs, *rest) or "")
            except Refused as refusal:
                names = {"bootstrap": "Bootstrap", "bootout": "Boot-out"}
                prefix = f"{names[verb]} failed: {refusal.code}: " if verb in names else ""
                return refusal.code, f"{prefix}{refusal}"
            except (AttributeError, TypeError):
                return 64, "Unrecognized subcommand or usage"

    def _forget_gone(self) -> None:
        self._jobs = {label: job for label, job in self._jobs.items() if not job.gone.is_set()}

    def _check_domain(self, knobs: Knobs, domain: str) -> None:
        if not knobs.session or (domain.startswith("gui/") and not knobs.gui):
            raise Refused(112, f"Could not find domain for {domain.replace('/', ': ')}")

    def _job(self, knobs: Knobs, target: str, code: int) -> Job:
        domain, _, label = target.rpartition("/")
        self._check_domain(knobs, domain)
        if label not in self._jobs:
            raise Refused(code, f'Could not find service "{label}" in domain for {domain}' if code == 113 else "")
        return self._jobs[label]

    def bootstrap(self, knobs: Knobs, domain: str, file: str) -> None:
        self._check_domain(knobs, domain)
        if knobs.bootstrap_errors:
            code = knobs.bootstrap_errors.pop(0)
            (self._folder / KNOBS).write_text(json.dumps(vars(knobs)))
            raise Refused(code)
        path = Path(file)
        if not path.exists():
            raise Refused(5)
        if stat.S_IMODE(path.stat().st_mode) & 0o022:
            raise Refused(122)
        keys = plistlib.loads(path.read_bytes())
        kind = "Aqua" if domain.startswith("gui/") else "Background"
        if kind not in keys.get("LimitLoadToSessionType", ["Aqua"]):
            raise Refused(134)
        if self._disabled.get(keys["Label"]):
            raise Refused(5)
        if old := self._jobs.get(keys["Label"]):
            raise Refused(5 if old.leaving.is_set() else knobs.loaded_code)
        if knobs.forbidden:
            return
        job = self._jobs[keys["Label"]] = Job(path, keys, knobs)
        if keys.get("RunAtLoad") and not knobs.idle:
            job.start()

    def bootout(self, knobs: Knobs, target: str) -> None:
        job = self._job(knobs, target, 3)
        if job.leaving.is_set():
            raise Refused(36)
        job.leave()
        self._forget_gone()

    def enable(self, knobs: Knobs, target: str) -> None:
        self._check_domain(knobs, target.rpartition("/")[0])
        self._disabled[target.rpartition("/")[2]] = False

    def disable(self, knobs: Knobs, target: str) -> None:
        self._check_domain(knobs, target.rpartition("/")[0])
        self._disabled[target.rpartition("/")[2]] = True

    def kickstart(self, knobs: Knobs, target: str) -> None:
        job = self._job(knobs, target, 113)
        if job.process is not None:
            raise Refused(37)
        job.start()

    def print(self, knobs: Knobs, target: str) -> str:
        if knobs.print_error:
            raise Refused(knobs.print_error)
        if target.count("/") == 1:
            self._check_domain(knobs, target)
            return f"{target} = {{\n\ttype = user\n}}"
        return self._job(knobs, target, 113).printed()

    def print_disabled(self, knobs: Knobs, domain: str) -> str:
        self._check_domain(knobs, domain)
        words = {True: "disabled", False: "enabled"}
        lines = "\n".join(f'\t\t"{label}" => {words[off]}' for label, off in self._disabled.items())
        return f"\tdisabled services = {{\n{lines}\n\t}}"

    def close(self) -> None:
        """End all jobs, at once and for good."""
        for job in self._jobs.values():
            job.leaving.set()
            if job.process is not None:
                os.killpg(job.process.pid, signal.SIGKILL)
                job.process.wait()


def serve(folder: Path) -> None:
    """Answer calls until TERM."""
    launchd = FakeLaunchd(folder)

    def leave(*_: object) -> None:
        launchd.close()
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "starting.sock"))
        listener.listen(16)
        (folder / "starting.sock").rename(folder / SOCKET)  # it is there when it can be connected to
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rw") as stream:
                code, text = launchd.obey(json.loads(stream.readline()))
                stream.write(json.dumps([code, text]) + "\n")


def ask(folder: Path, arguments: Sequence[str]) -> tuple[int, str]:
    """Exit status and text of one launchctl call."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(folder / SOCKET))
        with connection.makefile("rw") as stream:
            stream.write(json.dumps(arguments) + "\n")
            stream.flush()
            code, text = json.loads(stream.readline())
    return int(code), str(text)


def ctl(folder: Path, arguments: Sequence[str]) -> int:
    """Be launchctl."""
    code, text = ask(folder, arguments)
    sys.stdout.write(f"{text}\n" if text else "")
    return code


if __name__ == "__main__":
    role, place, *rest = sys.argv[1:]
    if role == "serve":
        serve(Path(place))
    sys.exit(ctl(Path(place), rest))
