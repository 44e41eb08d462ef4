"""What the running daemon says of itself."""

from __future__ import annotations

import anyio
import msgspec

from stoker import __version__
from stoker.daemon.checkup.running import findings
from stoker.ipc.control_messages import Departure, StatusReport
from tests.fakes.fake_dispatch import FakeBackend


def report(**fields: object) -> StatusReport:
    """A daemon that is ready and warm, with some fields set otherwise."""
    status = anyio.run(FakeBackend().status)
    return msgspec.structs.replace(status, **{"version": __version__, **fields})


def test_no_daemon() -> None:
    """Nothing is said of one that isn't there."""
    assert list(findings(None)) == []


def test_ready_daemon() -> None:
    """Ready and warm, in its own version: one good finding."""
    assert [(finding.level, finding.text) for finding in findings(report())] == [("ok", "ready, warm")]


def test_failed_daemon() -> None:
    """Its reason is told, and what to do after mending it."""
    (finding,) = findings(report(ready=False, phase="failed", reason="no such model"))

    assert (finding.level, finding.text) == ("wrong", "failed: no such model")


def test_what_else_it_says() -> None:
    """Another version, its notes, and workers that died are noted; those that were asked to end are not."""
    departures = (
        Departure(at=1.0, generation=1, cause="ended by SIGTERM, as asked", expected=True),
        Departure(at=2.0, generation=2, cause="crashed with SIGSEGV"),
    )
    found = list(findings(report(version="0.0.1", notes=("no OpenBLAS found", "odd"), restarts=departures)))

    assert [finding.subject for finding in found] == ["daemon", "version", "daemon", "restarts"]
    assert "1 workers ended unasked; the last (generation 2): crashed with SIGSEGV" in found[-1].text
