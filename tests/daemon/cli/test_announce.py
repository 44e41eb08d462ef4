from __future__ import annotations

import io
from pathlib import Path

import anyio
import pytest

from stoker.daemon.cli.announce import Announcer
from stoker.daemon.readiness import Board
from stoker.ipc.control_messages import ProgressStatus, Readiness
from tests.fakes.fake_steward import FAILED, LOADING, READY, FakeSteward, changed, served

pytestmark = pytest.mark.anyio

WARMING = [
    changed(LOADING, phase="warming", progress=ProgressStatus(stage="warm", name="system", done=done, total=1832))
    for done in range(0, 1832, 8)
]
CRASHED = changed(LOADING, phase="backoff", reason="killed by SIGKILL", retry_after=1.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


async def announced(out: io.StringIO, *history: Readiness, socket: Path | None = None) -> str:
    """What is written while a daemon goes through these snapshots."""
    steward = FakeSteward(Board(LOADING))
    async with served(steward) as path, anyio.create_task_group() as group:
        group.start_soon(Announcer(socket or path, out), steward.board)
        await anyio.wait_all_tasks_blocked()
        for readiness in history:
            steward.board.publish(readiness)
        while "status" not in steward.asked and READY in history and socket is None:
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    return out.getvalue()


async def test_plain_lines_tell_the_way_to_ready() -> None:
    """Without a terminal: a line for each phase and quarter of the warmup, what was warmed, and where to ask."""
    lines = (await announced(io.StringIO(), *WARMING, READY)).splitlines()

    assert lines[0] == "stoker: loading the model (generation 1)"
    assert "warming system, 0 of 1,832 tokens" in lines[1]
    assert 3 <= sum("warming" in line for line in lines) <= 5
    assert "stoker: ready (generation 1), warm: system 1,832 tokens (prefilled, 1.90 s)" in lines
    assert "stoker: send requests to http://127.0.0.1:11500/v1" in "\n".join(lines)
    assert any(line.startswith("  curl http://127.0.0.1:11500/v1/chat/completions") for line in lines)
    assert "\x1b" not in "\n".join(lines)


async def test_the_invitation_comes_once() -> None:
    """After a crash the new ready is a line, not the whole introduction again, and not each step on the way."""
    text = await announced(io.StringIO(), READY, CRASHED, *WARMING, changed(READY, generation=2))

    assert text.count("curl") == 1
    assert text.count("warming") == 1
    assert "killed by SIGKILL" in text
    assert "ready (generation 2)" in text


async def test_a_terminal_has_a_bar_and_then_lines() -> None:
    """On a terminal progress is drawn in place; when it is over, the same facts are left as lines."""
    text = await announced(Terminal(), *WARMING, READY)
    left = text.split("\x1b[2K")[-1]

    assert "\x1b[" in text
    assert "ready (generation 1), warm: system 1,832 tokens" in left
    assert "curl" in left
    assert "loading" not in left


async def test_a_failure_is_told() -> None:
    """A daemon that gave up says why, on a terminal and without one."""
    for out in (io.StringIO(), Terminal()):
        assert "stoker: failed: the model is unusable" in await announced(out, FAILED)


async def test_an_output_that_is_gone_ends_the_announcing_only() -> None:
    """A closed pipe must not take the daemon down."""
    assert await announced(Gone(), FAILED) == ""


async def test_without_an_answer_there_is_no_invitation(tmp_path: Path) -> None:
    """Where the daemon can't be asked any more, ready is all that is said."""
    text = await announced(io.StringIO(), READY, socket=tmp_path / "gone")

    assert "ready (generation 1)" in text
    assert "curl" not in text
