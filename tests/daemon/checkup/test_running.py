"""What the running daemon says of itself."""

from __future__ import annotations

import anyio
import msgspec

from stoker import __version__
from stoker.daemon.checkup.running import findings
from stoker.ipc.control_messages import Departure, Rates, StatusReport
from tests.fakes.fake_dispatch import FakeBackend


def report(**fields: object) -> StatusReport:
    """A daemon that is ready and warm, with some fields set otherwise."""
    status = anyio.run(FakeBackend().status)
    return msgspec.structs.replace(status, **{"version": __version__, "rates": Rates(), **fields})


def test_no_daemon() -> None:
    """Nothing is said of one that isn't there."""
    assert list(findings(None)) == []


def test_ready_daemon() -> None:
    """Ready and warm, in its own version: one good finding."""
    assert [(finding.level, finding.text) for finding in findings(report())] == [("ok", "ready, warm")]


def test_rates_are_told() -> None:
    """The model's own speed is told as far as it was measured: a warmup measures prefill alone."""
    texts = [
        next(findings(report(rates=rates))).text
        for rates in (Rates(prompt_tps=1812.4), Rates(prompt_tps=88.0, generation_tps=21.25))
    ]

    assert texts == ["ready, warm; 1,812 prompt tokens/s", "ready, warm; 88 prompt, 21.2 generation tokens/s"]


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
