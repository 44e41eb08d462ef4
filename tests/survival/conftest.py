"""Daemons over fake workers, as processes and inside the test, for scenarios in which something goes wrong."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import psutil
import pytest

from tests.fakes.fake_scenario import COMMAND
from tests.fakes.house import Open, housing
from tests.fakes.running_daemon import RunningDaemon

EAGER = {"STOKER_BACKOFF_BASE_SEC": "0.01", "STOKER_BACKOFF_CAP_SEC": "0.05", "STOKER_STOP_GRACE_SEC": "0.5"}
"""Restarts at once, so that tests wait for processes only."""

Run: TypeAlias = Callable[..., RunningDaemon]


@pytest.fixture
def run() -> Run:
    """Makes a daemon process whose workers follow a scenario; keyword arguments are its environment."""

    def make(scenario: object = "", **environ: str) -> RunningDaemon:
        text = scenario if isinstance(scenario, str) else json.dumps(scenario)
        worker = {"STOKER_WORKER_COMMAND": ",".join(COMMAND), "FAKE_WORKER": text}
        return RunningDaemon("embedded", {**EAGER, **worker, **environ})

    return make


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A private folder whose path is short enough for sockets; it must be without sockets at the end."""
    folder = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
    try:
        yield folder
        left = [path.name for path in folder.rglob("*") if path.is_socket()]
    finally:
        shutil.rmtree(folder)
    assert not left, f"sockets left behind: {left}"


@pytest.fixture
def opened(short_dir: Path) -> Open:
    """Opens a supervisor and a dispatch inside the test, over fake workers that are processes."""
    return functools.partial(housing, short_dir)


@pytest.fixture
def no_children() -> Iterator[None]:
    """The test must leave no process behind."""
    yield
    assert psutil.Process().children(recursive=True) == []
