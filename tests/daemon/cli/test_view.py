from __future__ import annotations

import io

import anyio
import msgspec
import pytest
from rich.console import Console

from stoker.daemon.cli import view
from stoker.daemon.readiness import Board
from stoker.ipc.control_messages import Departure, Rates, ReloadStatus, StatusReport, SuccessorStatus
from tests.fakes.fake_steward import READY, FakeSteward, changed


def report(steward: FakeSteward) -> StatusReport:
    return anyio.run(steward.status)


def drawn(status: StatusReport, elapsed: float = 0.0) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(view.table(status, elapsed))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_running_times_go_on() -> None:
    """Between two reports the time that passed is added to what runs."""
    assert "up 1 min 10 s" in drawn(report(FakeSteward()), elapsed=5.0)


def test_why_it_is_not_warm_is_in_the_first_row() -> None:
    """A daemon that is ready without being warm says so where it is seen first."""
    steward = FakeSteward(Board(changed(READY, warm=False, reason="timeout")))

    assert "ready, not warm: timeout" in drawn(report(steward)).splitlines()[0]


def test_brackets_are_no_markup() -> None:
    """What comes from elsewhere is shown as it is, also where it looks like rich's markup."""
    status = msgspec.structs.replace(report(FakeSteward()), notes=("set [bold] in [x]",))

    assert "set [bold] in [x]" in drawn(status)


def test_only_the_latest_restarts_are_listed() -> None:
    """The number of all restarts, and the last few with their causes."""
    crashes = tuple(Departure(at=0.0, generation=number, cause=f"cause {number}.") for number in range(20))
    text = drawn(msgspec.structs.replace(report(FakeSteward()), restarts=crashes))

    assert "restarts" in text
    assert "20" in text
    assert "cause 19." in text
    assert "cause 14." not in text


def test_reload_and_successor_are_shown() -> None:
    """A refused reload says why, and a worker that is being prepared how far it is."""
    status = msgspec.structs.replace(
        report(FakeSteward()),
        reload=ReloadStatus(at=1.0, outcome="refused", message="port = 'x' can't be used"),
        successor=SuccessorStatus(generation=4, phase="warming", since=1.0),
    )

    assert "refused: port = 'x' can't be used" in drawn(status)
    assert "generation 4, warming" in drawn(status)


def test_speeds_that_are_not_known_are_no_zeros() -> None:
    """A worker that has only restored its prefixes has no speed yet; one that computed them has that of prefill."""

    def row(rates: Rates) -> str:
        lines = drawn(msgspec.structs.replace(report(FakeSteward()), rates=rates)).splitlines()
        return next(line.strip() for line in lines if line.startswith("tokens/s"))

    assert row(Rates()).endswith("none measured since this worker's start")
    assert row(Rates(prompt_tps=812.0)).split() == ["tokens/s", "812", "prompt"]
    assert row(Rates(prompt_tps=812.0, generation_tps=43.2)).endswith("812 prompt, 43.2 generation")


def test_a_live_view_replaces_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later report takes the place of the one before."""
    out = io.StringIO()
    monkeypatch.setattr(view, "console", lambda: Console(file=out, force_terminal=True, width=120))
    first = report(FakeSteward())
    with view.LiveStatus() as live:
        live.show(first)
        live.show(msgspec.structs.replace(first, generation=987))

    assert "987" in out.getvalue().rsplit("\x1b[2K", 1)[-1]  # what stands when the view ends
