"""No orphans, no thieves: daemons that die at any instant, and daemons that meet what others left behind."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import psutil
import pytest

from stoker.ipc.control import DaemonAbsent, connect
from tests.fakes.running_daemon import DEADLINE, RunningDaemon, is_alive
from tests.survival.conftest import Run

pytestmark = pytest.mark.anyio

GONE_WITHIN = 1.0
"""Seconds in which a worker must follow its daemon."""

SLOWLY = {"load": {"seconds": 0.15, "steps": 5}, "warm": {"seconds": 0.15, "steps": 5}}
"""Phases long enough to be hit."""


def family_of(daemon: RunningDaemon) -> list[int]:
    """The daemon's worker and whatever that one started."""
    return [child.pid for child in psutil.Process(daemon.process.pid).children(recursive=True)]


async def all_gone(pids: list[int]) -> None:
    """Each of these processes ends in time."""
    with anyio.fail_after(GONE_WITHIN):
        while any(is_alive(pid) for pid in pids):  # noqa: ASYNC110 - they are nobody's children any more
            await anyio.sleep(0.005)


def buried(daemon: RunningDaemon) -> None:
    """The daemon is reaped, so that it can be started again."""
    daemon.process.wait(DEADLINE)
    if daemon.process.stdout is not None:
        daemon.process.stdout.close()


async def _murdered_at_random(daemon: RunningDaemon, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    async with daemon:
        for number in range(rounds):
            if chance.random() < 0.2:  # in the middle of a stop
                await daemon.ready()
                daemon.process.send_signal(signal.SIGTERM)
                await anyio.sleep(chance.uniform(0, 0.1))
            else:  # anywhere from the first instruction to serving
                await anyio.sleep(chance.uniform(0, 1.5))
            family = family_of(daemon) if daemon.process.poll() is None else []
            daemon.process.kill()
            buried(daemon)
            await all_gone(family)
            daemon.start()
            assert number < rounds
        assert (await daemon.ready()).ready


async def test_daemon_murdered_at_random_instants(run: Run) -> None:
    """At whatever instant the daemon is killed, its worker is gone within a second and the next start is clean."""
    await _murdered_at_random(run(SLOWLY), rounds=4, seed=4)


@pytest.mark.storm
@pytest.mark.timeout(600)
async def test_daemon_murdered_at_a_hundred_instants(run: Run) -> None:
    """The same at a hundred instants of start, load, warmup, serving and stop."""
    await _murdered_at_random(run(SLOWLY), rounds=100, seed=5)


async def test_what_a_worker_started_holds_nothing(run: Run) -> None:
    """What a worker of somebody else's started, and a murdered daemon can't end, is no hindrance for the next one."""
    fault = {"at": "welcome", "do": "grandchild"}
    async with run({"faults": [fault]}) as daemon:
        await daemon.ready()
        worker = await daemon.worker_pid()
        left = [pid for pid in family_of(daemon) if pid != worker]
        daemon.process.kill()
        buried(daemon)
        await all_gone([worker])
        daemon.start()

        assert (await daemon.ready()).ready
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert left


def _litter(runtime: Path, pid: int) -> None:
    """What a daemon leaves that lost its power."""
    runtime.mkdir(mode=0o700, parents=True)
    for name in ("control.sock", "worker-1.sock", "worker-7.sock"):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(runtime / name))
    (runtime / "control.sock.lock").write_text(f"{pid}\n", encoding="utf-8")


async def test_leftovers_are_no_hindrance(run: Run) -> None:
    """Stale sockets, a stale lock file with an innocent's pid: the daemon starts, and signals nobody."""
    async with await anyio.open_process(["/bin/sleep", "60"]) as innocent:
        daemon = run()
        _litter(Path(daemon.environ["STOKER_RUNTIME_DIR"]), innocent.pid)
        async with daemon:
            assert (await daemon.ready()).ready
        assert innocent.returncode is None
        assert is_alive(innocent.pid)
        innocent.kill()


async def _race(daemon: RunningDaemon, rounds: int) -> None:
    """Two daemons at once, again and again."""
    for _ in range(rounds):
        both = [_contender(daemon) for _ in range(2)]
        with anyio.fail_after(DEADLINE):
            while all(process.poll() is None for process in both):  # noqa: ASYNC110 - other processes' ends
                await anyio.sleep(0.01)
        [winner] = [process for process in both if process.poll() is None]
        [loser] = [process for process in both if process is not winner]
        assert loser.returncode == 78
        assert b"another stoker is running" in (loser.stderr.read() if loser.stderr else b"")
        async with _reached(daemon.socket) as pid:
            assert pid == winner.pid
        winner.terminate()
        await anyio.to_thread.run_sync(winner.wait, DEADLINE)
        for process in both:
            if process.stderr is not None:
                process.stderr.close()


def _contender(daemon: RunningDaemon) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        daemon.command,
        env=daemon.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


class _reached:  # noqa: N801 - reads as a function
    """The pid of the daemon that answers at a socket, as soon as one does."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aenter__(self) -> int:
        with anyio.fail_after(DEADLINE):
            while True:
                try:
                    async with connect(self._path) as client:
                        return (await client.status()).pid
                except DaemonAbsent:
                    await anyio.sleep(0.01)

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""


async def test_two_daemons_at_once(run: Run) -> None:
    """Of two daemons started at once exactly one serves, and the other ends with 78 and a clear line."""
    daemon = run()
    await _race(daemon, rounds=1)
    async with daemon:
        assert (await daemon.ready()).ready


@pytest.mark.storm
@pytest.mark.timeout(600)
async def test_fifty_pairs_of_daemons(run: Run) -> None:
    """The same fifty times."""
    daemon = run()
    await _race(daemon, rounds=50)
    async with daemon:
        assert (await daemon.ready()).ready


async def test_deleted_control_socket_comes_back(run: Run) -> None:
    """A control socket whose file is deleted is there again within five seconds; open connections never notice."""
    async with run() as daemon:
        await daemon.ready()
        async with daemon.control() as early:
            daemon.socket.unlink()
            with anyio.fail_after(5):
                async with daemon.control() as late:
                    assert (await late.ready()).ready
            assert (await early.ready()).ready


async def test_signal_storm(run: Run) -> None:
    """Signals that mean nothing to a daemon, a thousand of them, change nothing; two TERMs end it quickly."""
    async with run() as daemon:
        await daemon.ready()
        for number in range(1000):
            os.kill(daemon.process.pid, (signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGWINCH)[number % 4])
        assert (await daemon.status()).generation == 1


def _open_files(pid: int) -> list[str]:
    return [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_worker_inherits_nothing(run: Run) -> None:
    """A worker has none of the daemon's sockets, logs or locks, so that none outlives the daemon in it."""
    async with run() as daemon:
        await daemon.ready()
        pid = await daemon.worker_pid()
        links = _open_files(pid)

        assert [link for link in links if str(daemon.home) in link] == []
        assert sum(link.startswith("socket:") for link in links) == 1
