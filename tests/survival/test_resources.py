"""What everybody shares runs out: descriptors, disk, patience with logs."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import psutil
import pytest

from stoker.ipc.control import connect
from tests.fakes.running_daemon import RunningDaemon
from tests.survival.chat import chat
from tests.survival.conftest import Run

pytestmark = pytest.mark.anyio


def kill_worker(pid: int) -> None:
    psutil.Process(pid).kill()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the system can't change another process's limits")
async def test_descriptors_run_out(run: Run) -> None:
    """Without descriptors a worker can't be started and nobody can connect; with them again, both recover at once."""
    async with run() as daemon:
        await daemon.ready()
        url = (await daemon.status()).http
        before = psutil.Process(daemon.process.pid).num_fds()
        _, ceiling = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
        async with connect(daemon.socket) as witness:
            resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (before + 1, ceiling))
            kill_worker(await worker_of(daemon))
            await anyio.sleep(0.5)  # a few starts in vain
            assert not (await witness.ready()).ready
            resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (ceiling, ceiling))
        assert (await daemon.ready(generation=2)).ready
        assert await chat(url, "Hello?")
        await settled(daemon, before)


async def worker_of(daemon: RunningDaemon) -> int:
    """Its worker, without asking it."""
    [child] = psutil.Process(daemon.process.pid).children()
    return int(child.pid)


async def settled(daemon: RunningDaemon, descriptors: int) -> None:
    """The daemon holds no more than it did."""
    with anyio.fail_after(10):
        while psutil.Process(daemon.process.pid).num_fds() > descriptors:  # noqa: ASYNC110 - another process
            await anyio.sleep(0.05)


async def test_restarts_leak_nothing(run: Run) -> None:
    """Many dead workers later the daemon holds as many descriptors, threads and children as with the first."""
    async with run(STOKER_RESTART_LIMIT="1000") as daemon:
        await daemon.ready()
        process = psutil.Process(daemon.process.pid)
        before, threads = process.num_fds(), process.num_threads()
        for generation in range(2, 7):
            kill_worker(await worker_of(daemon))
            await daemon.ready(generation)
        daemon.workers = {await daemon.worker_pid()}
        await settled(daemon, before)

        assert process.num_threads() <= threads + 1
        assert len(process.children(recursive=True)) == 1


PRIVATE = ("unshare", "-m", "--propagation", "private", "--")
FILL = (
    'mount -t tmpfs -o size=64k tmpfs "$1" || exit 9; head -c 70000 /dev/zero >"$1"/fill 2>/dev/null; '
    'df -k "$1" >&2; shift; exec "$@"'
)
"""A small disk that is full, for this process and its children only."""


def has_private_mounts() -> bool:
    if shutil.which("unshare") is None:
        return False
    script = [*PRIVATE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(script, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not has_private_mounts(), reason="no private mount namespace can be made here")
async def test_full_disk(run: Run, tmp_path: Path) -> None:
    """With the disk of logs and state full the service starts, answers, and replaces its workers."""
    small = tmp_path / "small"
    small.mkdir()
    daemon = run(STOKER_LOG_DIR=str(small / "log"), STOKER_STATE_DIR=str(small / "state"))
    daemon.command = [*PRIVATE, "/bin/sh", "-c", FILL, "sh", str(small), *daemon.command]
    async with daemon:
        await daemon.ready()
        url = (await daemon.status()).http
        assert await chat(url, "Hello?")
        kill_worker(await daemon.worker_pid())
        assert (await daemon.ready(generation=2)).ready
        assert await chat(url, "And now?")
        daemon.process.terminate()
        await anyio.to_thread.run_sync(daemon.process.wait, 30)
        said = daemon.output()

    assert "100%" in said
    assert "No space left on device" in said


@pytest.mark.skipif(os.geteuid() == 0 and sys.platform == "linux", reason="root writes where it must not")
async def test_read_only_logs_and_state(run: Run, tmp_path: Path) -> None:
    """Folders that can't be written cost logs and history, not the service."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    async with run(STOKER_LOG_DIR=str(closed / "log"), STOKER_STATE_DIR=str(closed / "state")) as daemon:
        await daemon.ready()
        assert await chat((await daemon.status()).http, "Hello?")


async def test_log_folder_removed(run: Run) -> None:
    """A log folder that somebody removes is no fault; the next worker's lines are written again."""
    async with run() as daemon:
        await daemon.ready()
        shutil.rmtree(daemon.environ["STOKER_LOG_DIR"])
        kill_worker(await daemon.worker_pid())

        assert (await daemon.ready(generation=2)).ready


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


async def test_flood_of_output_is_bounded_on_disk(run: Run) -> None:
    """A worker that writes 60 MB leaves a rotated log of a bounded size, and is not held up."""
    scenario = {"faults": [{"at": "generate", "step": 2, "do": "stderr", "count": 60_000_000}]}
    async with run(scenario) as daemon:
        await daemon.ready()
        assert await chat((await daemon.status()).http, "Hello?")
        size = size_of(Path(daemon.environ["STOKER_LOG_DIR"]))

        assert size < 8_000_000
        assert psutil.Process(daemon.process.pid).memory_info().rss < 200 << 20
