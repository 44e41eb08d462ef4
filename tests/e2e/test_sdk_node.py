"""OpenAI's and Anthropic's SDKs for Node, as npm has them, against a real daemon with a real worker."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.scripted_model import SCRIPTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SOURCE = Path(__file__).parent / "node"
INSTALLING = 120.0
ASKING = 120.0
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "E403", "E404")
"""What npm says where there is no registry; anything else is a fault of ours, such as a lock that doesn't fit."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script and the SDK, as locked."""
    if shutil.which("node") is None or (npm := shutil.which("npm")) is None:
        pytest.skip("node and npm are not installed")
    folder = shutil.copytree(SOURCE, tmp_path_factory.mktemp("node") / "client")
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALLING, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm could not fetch the SDK within {INSTALLING:g} s")
    if any(word in done.stderr for word in UNREACHABLE):
        pytest.skip(f"npm can't reach its registry: {done.stderr.strip().splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def found(installed: Path, scripted_url: str) -> dict[str, Any]:
    """What the script found."""
    done = subprocess.run(
        ["node", "ask.mjs", f"{scripted_url}/v1"],  # noqa: S607 - the fixture looked for it
        cwd=installed,
        capture_output=True,
        text=True,
        timeout=ASKING,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_chats(found: dict[str, Any]) -> None:
    """A chat is read whole, and what the SDK gathers from a stream has text, call and reason."""
    call = ["get_weather", {"city": "Bern"}]

    assert found["chat"]["text"] == SCRIPTS["plain"]
    assert found["chat"]["reason"] == "stop"
    assert found["chat"]["tokens"] > 0
    assert found["chatStream"] == {"text": "Let me see. ", "reason": "tool_calls", "calls": [call]}


def test_completions(found: dict[str, Any]) -> None:
    """A text is continued to the letter."""
    assert found["completion"] == {"text": SCRIPTS["plain"], "reason": "stop"}


def test_responses(found: dict[str, Any]) -> None:
    """Calls are items, and the events of a stream are in an order that the SDK accepts."""
    assert found["response"] == [
        ["function_call", "get_weather", {"city": "Rome"}],
        ["function_call", "get_weather", {"days": 2, "city": "Oslo"}],
    ]
    streamed = found["responseStream"]
    assert streamed["text"].strip() == "Yes, quite warm today."
    assert (streamed["status"], streamed["first"], streamed["last"]) == (
        "completed",
        "response.created",
        "response.completed",
    )


def test_messages(found: dict[str, Any]) -> None:
    """Anthropic's SDK reads calls whole, gathers thinking and a call from a stream, and counts what was used."""
    assert found["message"] == {
        "reason": "tool_use",
        "calls": [
            ["tool_use", "get_weather", {"city": "Rome"}],
            ["tool_use", "get_weather", {"days": 2, "city": "Oslo"}],
        ],
    }
    assert found["messageStream"] == {
        "thought": "Ask the service.",
        "input": {"city": "Wien"},
        "reason": "tool_use",
        "counted": True,
        "first": "message_start",
        "last": "message_stop",
    }
    assert found["messageErrors"] == [True, "not_found_error", True]


def test_errors(found: dict[str, Any]) -> None:
    """Refusals are the SDK's own kinds of error, with the field that is to blame."""
    assert found["errors"] == ["not found", "previous_response_id"]
