"""A daemon that is told to read its configuration again, and one that remembers: real processes, a fake worker."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from stoker.daemon.reload import READ_TIMEOUT
from stoker.ipc.control_messages import StatusReport
from stoker.ipc.errors import ErrorCode
from tests.fakes.notify_ear import ear
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


async def test_hup_in_place_goes_back_where_the_new_worker_fails() -> None:
    """A configuration with which no worker becomes ready, in place, costs a pause: the old one's serves again."""
    config('replacement = "in-place"\nmax_batch = 4')
    refusal = {"load": {"error": {"code": ErrorCode.MODEL_UNUSABLE, "message": "no such model"}}}
    async with daemon(FAKE_WORKER=json.dumps({"2": refusal, "default": {}})) as running:
        await running.ready()
        config('replacement = "in-place"\nmax_batch = 8')
        await reloaded(running)
        async with running.control() as client, aclosing(client.watch()) as snapshots:
            with anyio.fail_after(DEADLINE):
                async for readiness in snapshots:
                    assert readiness.phase != "failed"
                    if readiness.ready and readiness.generation == 3:
                        break

    assert readiness.replacement_failed is not None
    assert "no such model" in readiness.replacement_failed


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


async def test_systemd_hears_of_reloads() -> None:
    """Each SIGHUP is a reload that begins and ends for systemd, applied or refused, and in a burst, too."""
    config("max_waiting = 5")
    with ear() as systemd:
        async with daemon(**systemd.environ) as running:
            await systemd.until(b"READY=1")
            config("max_waiting = 6\nmax_batch = 3")
            running.process.send_signal(signal.SIGHUP)
            applied = await systemd.until(b"reload applied: at once: max_waiting; with a new worker: max_batch")
            config("max_waiting = ")
            running.process.send_signal(signal.SIGHUP)
            refused = await systemd.until(b"reload refused: configuration file")
            for _ in range(20):
                running.process.send_signal(signal.SIGHUP)
            config("max_waiting = 7\nmax_batch = 3")
            running.process.send_signal(signal.SIGHUP)
            burst = await systemd.until(b"reload applied: at once: max_waiting")

    for heard in (applied, refused):
        assert words(heard) == ["RELOADING=1", "READY=1"]
        assert any(b"MONOTONIC_USEC=" in word for word in heard)
    assert words(burst)
    assert words(burst) == ["RELOADING=1", "READY=1"] * (len(words(burst)) // 2)


def words(heard: list[bytes]) -> list[str]:
    """What is said of reloading and being ready, in its order."""
    lines = b"\n".join(heard).decode().splitlines()
    return [line for line in lines if line in {"RELOADING=1", "READY=1"}]


async def test_hup_before_ready_is_no_ready(tmp_path: Path) -> None:
    """A reload while the first worker still loads is carried out, and not told as READY=1."""
    config("max_waiting = 5")
    heard: list[bytes] = []
    with ear() as systemd:
        async with daemon(**systemd.environ, FAKE_WORKER='{"faults": [{"at": "load", "do": "hang"}]}') as running:
            await systemd.until(b"loading the model")
            config("max_waiting = 6")
            async with anyio.create_task_group() as tasks:

                async def listen() -> None:  # all the while: what nobody reads is not said twice
                    heard.extend(await systemd.until(b"STOPPING=1"))

                tasks.start_soon(listen)
                status = await reloaded(running)
                running.process.send_signal(signal.SIGTERM)

    assert (status.ready, status.reload and status.reload.outcome) == (False, "applied")
    assert words(heard) == []


@pytest.mark.slow
async def test_configuration_that_hangs_holds_up_no_stop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """While a configuration that became a pipe is being read, and read again, the daemon ends at once when told."""
    path = tmp_path / "hangs.toml"
    path.touch()
    monkeypatch.setenv("STOKER_CONFIG", str(path))
    async with daemon() as running:
        await running.ready()
        path.unlink()
        os.mkfifo(path)
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            running.process.send_signal(number)
        code = await anyio.to_thread.run_sync(running.process.wait, READ_TIMEOUT / 2)

    assert code == 0


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
