"""`stoker run` with a real worker, configured prompts with tools, and what it keeps on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from tests.fakes.running_daemon import DEADLINE, RunningDaemon

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CONFIG = """\
[[warmup]]
name = "agent"
file = "agent.md"
tools = "tools.json"

[[warmup]]
name = "reviewer"
system = "You review patches, and never write any code yourself, however often you are asked to do it."
"""
TOOLS = [
    {"name": name, "description": f"It can {name} files.", "input_schema": {"type": "object", "properties": {}}}
    for name in ("read", "write", "list")
]


@pytest.fixture
def config(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "agent.md").write_text("You are an agent that works with files, carefully, and asks before it acts.")
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    (tmp_path / "stoker.toml").write_text(CONFIG)
    return {"STOKER_CONFIG": str(tmp_path / "stoker.toml"), "STOKER_BACKOFF_BASE_SEC": "0.05"}


def stoker(daemon: RunningDaemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stoker.daemon", *arguments, "--socket", str(daemon.socket)]
    return subprocess.run(command, env=daemon.environ, capture_output=True, text=True, timeout=DEADLINE, check=False)


async def test_configured_prompts_are_warm_and_kept(tiny_llama: Path, config: dict[str, str]) -> None:
    """What `[[warmup]]` says is warm at ready, with its tools, restored after kill -9, listed, verified, cleared."""
    async with RunningDaemon(tiny_llama, config) as daemon:
        first = (await daemon.ready()).warmup
        with anyio.fail_after(DEADLINE):
            while not ((store := (await daemon.status()).store) and store.saved == 2):  # noqa: ASYNC110 - it is another process
                await anyio.sleep(0.02)
        os.kill(await daemon.worker_pid(), signal.SIGKILL)
        second = (await daemon.ready(generation=2)).warmup
        listed = json.loads(stoker(daemon, "cache", "list", "--json").stdout)
        verified = stoker(daemon, "cache", "verify")
        one = stoker(daemon, "cache", "clear", "agent")
        everything = stoker(daemon, "cache", "clear", "--yes")
        after = (await daemon.status()).store

    assert [(prefix.name, prefix.source) for prefix in first.prefixes] == [
        ("agent", "prefilled"),
        ("reviewer", "prefilled"),
    ]
    assert [(prefix.name, prefix.source) for prefix in second.prefixes] == [
        ("agent", "restored"),
        ("reviewer", "restored"),
    ]
    assert {one["name"]: one["uses"] for one in listed["prefixes"]} == {"agent": 1, "reviewer": 1}
    assert (verified.returncode, verified.stdout.split(":")[1]) == (0, " all as they were saved\n")
    assert (one.stdout.split(",")[0], everything.stdout.split(",")[0]) == ("deleted: 1 prefix",) * 2
    assert after is not None
    assert after.entries == 0


async def test_a_prompt_file_that_changes_needs_no_restart(
    tiny_llama: Path, config: dict[str, str], tmp_path: Path
) -> None:
    """After the file was edited a rewarm warms the new text, and without the file says so instead of guessing."""
    async with RunningDaemon(tiny_llama, config) as daemon:
        before = (await daemon.ready()).warmup.prefixes[0]
        (tmp_path / "agent.md").write_text("You are an agent that works with files. Quickly.")
        async with daemon.control() as client:
            after = (await client.rewarm()).prefixes[0]
            (tmp_path / "agent.md").unlink()
            missing = await client.rewarm()

    assert (after.name, after.tokens_warm) == ("agent", after.tokens)
    assert 0 < after.tokens < before.tokens
    assert missing.outcome == "failed"
    assert "agent.md can't be used" in str(missing.reason)


async def test_a_bad_table_ends_the_start(tiny_llama: Path, config: dict[str, str], tmp_path: Path) -> None:
    """A prompt file that is not there ends `stoker run` with 78 and one line that names the key."""
    (tmp_path / "agent.md").unlink()
    daemon = RunningDaemon(tiny_llama, config)
    daemon.start()
    code = await anyio.to_thread.run_sync(lambda: daemon.process.wait(DEADLINE))
    output = daemon.output()
    daemon.process.stdout.close()  # type: ignore[union-attr]
    daemon.home.rmdir()

    assert code == 78
    assert "warmup[0].file = 'agent.md'" in output
    assert output.count("\n") == 1
