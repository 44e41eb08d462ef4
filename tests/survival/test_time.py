"""Clocks that jump, machines that sleep: time passes that nobody used."""

from __future__ import annotations

import ast
import os
import signal
from pathlib import Path

import aiohttp
import anyio
import pytest

from tests.survival.chat import PATH, body_of, chat, pieces
from tests.survival.conftest import Run

pytestmark = pytest.mark.anyio

DAEMON = Path(__file__).parents[2] / "daemon"

WALL_CLOCK = {
    "daemon/supervisor.py": "when a phase was entered, to be told",
    "daemon/slot.py": "when a phase was entered, to be told",
    "daemon/readiness.py": "the same, of the first snapshot",
    "daemon/history.py": "when a departure happened, to be told",
    "daemon/reload.py": "when a reload happened, to be told",
}
"""Files of the daemon's core that may look at the wall's clock, and why. None of them may compare it."""


def wall_clocks(path: Path) -> list[int]:
    """Lines that ask for the time of day."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if ast.unparse(call.func) in {"time.time", "datetime.now"}]


def test_no_decision_looks_at_the_wall_clock() -> None:
    """Only what is told to people uses the time of day, so a clock that jumps moves no deadline."""
    found = {f"daemon/{path.name}" for path in DAEMON.glob("*.py") if wall_clocks(path)}

    assert found <= set(WALL_CLOCK)


async def test_machine_that_sleeps(run: Run) -> None:
    """Daemon and worker stopped for longer than every budget, as by a machine's sleep: nobody is killed for it."""
    budgets = {"STOKER_NEXT_TOKEN_TIMEOUT_SEC": "1", "STOKER_FIRST_TOKEN_TIMEOUT_SEC": "1"}
    async with run({"generate": {"tokens_per_second": 10}}, **budgets) as daemon:
        await daemon.ready()
        url = (await daemon.status()).http
        whole = await chat(url, "Hello?", max_tokens=20)
        both = [await daemon.worker_pid(), daemon.process.pid]
        text = ""
        body = body_of("Hello?", max_tokens=20, stream=True)
        async with aiohttp.ClientSession() as http, http.post(f"{url}{PATH}", json=body) as answer:
            async for piece in pieces(answer):
                text += piece
                if piece and both:
                    for pid in both:
                        os.kill(pid, signal.SIGSTOP)
                    await anyio.sleep(3)  # the sleep itself
                    for pid in both:
                        os.kill(pid, signal.SIGCONT)
                    both = []
        status = await daemon.status()

        assert text == whole
        assert (status.generation, status.restarts) == (1, ())


async def test_daemon_that_was_stopped_alone(run: Run) -> None:
    """A daemon that was stopped while its worker went on takes up what came meanwhile."""
    async with run({"generate": {"tokens_per_second": 20}}, STOKER_NEXT_TOKEN_TIMEOUT_SEC="1") as daemon:
        await daemon.ready()
        url = (await daemon.status()).http
        answers: list[str] = []

        async def ask() -> None:
            answers.append(await chat(url, "Hello?", max_tokens=20))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.sleep(0.2)
            os.kill(daemon.process.pid, signal.SIGSTOP)
            await anyio.sleep(2.5)
            os.kill(daemon.process.pid, signal.SIGCONT)

        assert len(answers[0].split()) == 20
        assert (await daemon.status()).generation == 1
