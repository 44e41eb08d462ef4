"""From transitions to times."""

from __future__ import annotations

from bench.starts import Starts, starts_section
from stoker.bench.subject import Course, Transition
from stoker.ipc.control_messages import Phase, Readiness, WarmupStatus


def course(*steps: tuple[float, Phase, int], warm: bool = True) -> Course:
    last = steps[-1]
    warmup = WarmupStatus(outcome="succeeded", seconds=1.0)
    ready = Readiness(ready=True, phase=last[1], warm=warm, reason=None, generation=last[2], since=0.0, warmup=warmup)
    return Course(tuple(Transition(*step) for step in steps), ready)


STARTED = course((0.4, "starting", 1), (0.5, "loading", 1), (2.0, "warming", 1), (2.7, "ready", 1))
KILLED = course(
    (0.0, "ready", 1), (0.02, "starting", 2), (0.12, "loading", 2), (1.6, "warming", 2), (2.4, "ready", 2)
)


def test_phases_sum_up_to_the_whole() -> None:
    """The phases' times are a course's whole time, less what came before its first transition."""
    assert abs(sum(KILLED.phases().values()) - KILLED.seconds) < 1e-9
    assert abs(sum(STARTED.phases().values()) + 0.4 - STARTED.seconds) < 1e-9


def test_rows_name_the_parts() -> None:
    """The table has the floor, each kind of start beside it, and its parts by name."""
    found = Starts(floor=[1.35], started=[STARTED], healthy=[KILLED])
    rows = {row[0]: row[1:] for row in starts_section(found).rows}

    assert rows["daemon started, ready"] == ("2.70 s", "2.00x")
    assert rows["- daemon up, control socket answers"] == ("400 ms", "")
    assert rows["- death noticed"] == ("20.0 ms", "")
    assert "new worker killed, ready again" not in rows


def test_restart_that_is_not_warm_is_wrong() -> None:
    """A worker that came back cold, or that was not the next one, fails the run."""
    skipped = course((0.0, "ready", 1), (0.02, "starting", 2), (9.0, "ready", 3), warm=False)
    checks = starts_section(Starts(floor=[1.35], started=[STARTED], newborn=[skipped])).checks

    assert [check.ok for check in checks] == [False, False]
