"""A daemon with API keys: they open it, and are shown nowhere. The worker is a fake one."""

from __future__ import annotations

import asyncio
import http.client
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.fakes.fake_scenario import COMMAND
from tests.fakes.running_daemon import RunningDaemon

pytestmark = pytest.mark.anyio

KEY, FILED = "sk-local-0123456789", "key-of-the-file-0123456789"


def asked(url: str, path: str, **headers: str) -> tuple[int, str]:
    """Status and body of a GET."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def said(environ: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """`stoker chat` with this environment."""
    command = [sys.executable, "-m", "stoker.daemon", "chat", "Hi"]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


async def test_keys_open_the_api_and_are_shown_nowhere(tmp_path: Path) -> None:
    """Keys of the environment and of the file open it, `stoker chat` finds one; no log, status or error has any."""
    file = tmp_path / "keys"
    file.touch(0o600)
    file.write_text(FILED)
    environ = {
        "STOKER_WORKER_COMMAND": ",".join(COMMAND),
        "STOKER_API_KEYS": KEY,
        "STOKER_API_KEY_FILE": str(file),
        "STOKER_LOG_LEVEL": "debug",
    }
    async with RunningDaemon("embedded", environ) as daemon:
        await daemon.ready()
        status = await daemon.status()
        ask = [
            asyncio.to_thread(asked, status.http, "/status", **headers)
            for headers in ({}, {"x-api-key": "sk-wrong"}, {"x-api-key": KEY}, {"Authorization": f"Bearer {FILED}"})
        ]
        answers = await asyncio.gather(*ask)
        chat = await asyncio.to_thread(said, daemon.environ)
        locked_out = await asyncio.to_thread(said, daemon.environ | {"STOKER_API_KEYS": "sk-wrong-key"})
        logs = "".join(path.read_text() for path in daemon.home.rglob("*.log"))

    told = logs + daemon_words(status) + "".join(body for _, body in answers) + locked_out.stderr
    assert [code for code, _ in answers] == [401, 401, 200, 200]
    assert (chat.returncode, chat.stderr) == (0, "")
    assert locked_out.returncode == 2
    assert "not one of ours" in locked_out.stderr
    assert "ready" in logs
    assert not [key for key in (KEY, FILED) if key in told]


def daemon_words(status: msgspec.Struct) -> str:
    return msgspec.json.encode(status).decode()
