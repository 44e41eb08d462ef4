"""What a dead worker is suspected to have died of, and when it is trusted again; time is the test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.ipc.messages import StoreFigures, Warm, Warmed, WarmPrefix
from stoker.worker.mlx_engine.disk import RELEASE_SECONDS
from tests.fakes.driven_core import DrivenCore

ROOT = Path(__file__).resolve().parents[3]
SYSTEM = "You are the keeper of a store. Whatever is put into it comes out of it as it was, or not at all. " * 3
PREFIX = WarmPrefix(name="agent", system=SYSTEM)

DOOMED = """
import os, signal, sys
from pathlib import Path
from stoker.ipc.messages import WarmPrefix
from stoker.worker.mlx_engine import persist
from tests.fakes.driven_core import DrivenCore

persist.load = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
core = DrivenCore(Path(sys.argv[1]), store_dir=sys.argv[2])
core.warm(WarmPrefix(name="agent", system=sys.argv[3]))
"""


class Hands:
    """Timers that go off when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, seconds: float, work: Callable[[], None]) -> Hands:
        self.waiting.append((seconds, work))
        return self

    daemon = False

    def start(self) -> None: ...

    def cancel(self) -> None: ...


class Worker(DrivenCore):
    """A core with a store."""

    @property
    def store(self) -> StoreFigures:
        figures = self.core._figures().store
        assert figures is not None
        return figures


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    hands = Hands()
    monkeypatch.setattr("stoker.worker.mlx_engine.disk.threading.Timer", hands)
    return hands


def test_a_worker_that_dies_of_restoring_is_the_last(tiny_llama: Path, tmp_path: Path, hands: Hands) -> None:
    """The next worker leaves the entry out, says so, and computes; after ten good minutes it is restored again."""
    store = str(tmp_path / "prefixes")
    first = Worker(tiny_llama, store_dir=store)
    tokens = first.warm(PREFIX).prefixes[0].tokens
    first.core.close(20.0)
    doomed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DOOMED), str(tiny_llama), store, SYSTEM],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=100,
        check=False,
    )
    assert doomed.returncode == -signal.SIGKILL
    hands.waiting.clear()

    second = Worker(tiny_llama, store_dir=store)
    report = second.warm(PREFIX).prefixes[0]
    assert (report.source, report.tokens_warm) == ("prefilled", tokens)
    assert list(second.store.notes) == ["agent is left out: the worker died while restoring it"]

    ((seconds, release),) = hands.waiting
    assert seconds == RELEASE_SECONDS == 600
    release()
    assert not second.store.notes
    assert Worker(tiny_llama, store_dir=store).warm(PREFIX).prefixes[0].source == "restored"


def test_a_worker_that_restores_nothing_says_so(tiny_llama: Path, tmp_path: Path, hands: Hands) -> None:
    """Told to read nothing because others died of it, it shows that in its figures, and reads after ten minutes."""
    store = str(tmp_path / "prefixes")
    first = Worker(tiny_llama, store_dir=store)
    first.warm(PREFIX)
    first.core.close(20.0)
    worker = Worker(tiny_llama, store_dir=store)
    warmed: Any = worker.finish(worker.submit(Warm(prefixes=(PREFIX,), restore=False))).result

    assert isinstance(warmed, Warmed)
    assert warmed.prefixes[0].source == "prefilled"
    assert any("nothing is read from disk" in note for note in worker.store.notes)
    hands.waiting[-1][1]()
    assert not worker.store.notes
