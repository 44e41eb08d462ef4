"""A daemon that is told to read its configuration again, and one that remembers: real processes, a fake worker."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from stoker.ipc.control_messages import StatusReport
from tests.fakes.running_daemon import DEADLINE, RunningDaemon

pytestmark = pytest.mark.anyio

FAKE = Path(__file__).parents[1] / "fakes" / "fake_worker.py"


def daemon(**environ: str) -> RunningDaemon:
    return RunningDaemon("embedded", {"STOKER_WORKER_COMMAND": f"{sys.executable},{FAKE}", **environ})


def config(text: str) -> None:
    """Write the configuration file that the daemon reads."""
    Path(os.environ["STOKER_CONFIG"]).write_text(text, encoding="utf-8")


async def status_when(running: RunningDaemon, condition: Callable[[StatusReport], bool]) -> StatusReport:
    with anyio.fail_after(DEADLINE):
        while not condition(status := await running.status()):  # noqa: ASYNC110 - another process sets no event
            await anyio.sleep(0.02)
    return status


async def reloaded(running: RunningDaemon) -> StatusReport:
    """Send SIGHUP, and wait for what becomes of it."""
    before = (await running.status()).reload
    running.process.send_signal(signal.SIGHUP)
    return await status_when(running, lambda status: status.reload != before)


async def test_hup_replaces_the_worker_without_a_pause() -> None:
    """A key that needs another worker gets one beside the old one: ready all the time, in the same daemon."""
    config('replacement = "beside"\nmax_batch = 4')
    async with daemon() as running:
        await running.ready()
        async with running.control() as client, aclosing(client.watch()) as snapshots:
            assert (await anext(snapshots)).ready
            config('replacement = "beside"\nmax_batch = 8\naliases = ["gpt"]')
            running.process.send_signal(signal.SIGHUP)
            with anyio.fail_after(DEADLINE):
                async for readiness in snapshots:
                    assert readiness.ready
                    if readiness.generation == 2:
                        break
        told = await status_when(running, lambda status: len(status.restarts) == 1)

        assert told.reload is not None
        assert (told.reload.outcome, told.reload.message) == (
            "applied",
            "at once: aliases; with a new worker: max_batch",
        )
        assert told.restarts[0].cause == "replaced by generation 2: new configuration (max_batch)"
        await running.ready(generation=2)


async def test_hup_with_a_bad_file_changes_nothing() -> None:
    """A file with a mistake, or a key that can't be changed live, is refused whole; the daemon serves as before."""
    config("max_waiting = 5")
    async with daemon() as running:
        await running.ready()
        for text, why in (
            ("max_waiting = 6\nmax_batch = 'many'", "max_batch = 'many'"),
            ("max_waiting = 6\nhost = '127.0.0.2'", "host can't be changed while the daemon runs"),
            ("max_waiting = ", "it is not TOML"),
        ):
            config(text)
            status = await reloaded(running)
            assert status.reload is not None
            assert status.reload.outcome == "refused"
            assert why in status.reload.message
            assert (status.ready, status.generation, status.restarts) == (True, 1, ())


async def test_causes_outlive_the_daemon(tmp_path: Path) -> None:
    """Why a worker died is told by the next daemon, too."""
    state = str(tmp_path / "state-of-both")
    async with daemon(STOKER_STATE_DIR=state) as first:
        await first.ready()
        os.kill(await first.worker_pid(), signal.SIGKILL)
        await first.ready(generation=2)
    async with daemon(STOKER_STATE_DIR=state) as second:
        await second.ready()
        causes = [one.cause for one in (await second.status()).restarts]

    assert "killed by SIGKILL, not by Stoker" in causes[0]
    assert len(causes) == 2  # and the one that the first daemon ended itself
