"""Phases and causes, as the board told them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stoker.daemon.readiness import Board
from stoker.daemon.timeline import CLASSES, SPANS_KEPT, Start, Timeline, cause_class
from stoker.ipc.control_messages import Departure, Phase, PrefixStatus, Readiness, SuccessorStatus, WarmupStatus
from tests.fakes.fake_dispatch import READY

STARTING = msgspec.structs.replace(READY, ready=False, warm=False, phase="starting", generation=1, since=100.0)
PREFIXES = tuple(
    PrefixStatus(name=source, tokens=9, tokens_warm=9, source=source, seconds=0.1)
    for source in ("restored", "restored", "prefilled")
)


class Stage:
    """A timeline, and the board that it follows."""

    def __init__(self, *before: Departure) -> None:
        self.departures = list(before)
        self.board = Board(STARTING, lambda: 0.0)
        self.timeline = Timeline(self.board, lambda: self.departures)

    def publish(self, **changes: Any) -> Readiness:
        now: Readiness = msgspec.structs.replace(self.board.current, **changes)
        self.board.publish(now)
        return now

    def start(self, generation: int, at: float) -> None:
        """A whole start: a second, then two, then three, then ready."""
        for phase, since in (("starting", at), ("loading", at + 1), ("warming", at + 3)):
            self.publish(ready=False, warm=False, phase=phase, generation=generation, since=since)
        warmup = WarmupStatus(outcome="succeeded", seconds=3.0, prefixes=PREFIXES)
        self.publish(ready=True, warm=True, phase="ready", generation=generation, since=at + 6, warmup=warmup)


def died(generation: int, cause: str = "crashed with SIGSEGV", *, expected: bool = False) -> Departure:
    return Departure(at=1.0, generation=generation, cause=cause, expected=expected)


def test_phases_are_told_in_order_with_causes() -> None:
    """Each transition is a span, with the reason or the departure that brought it; progress is none."""
    stage = Stage()
    stage.start(1, 100.0)
    stage.publish(progress=None)
    stage.departures.append(died(1))
    stage.publish(ready=False, phase="starting", generation=2, since=200.0)

    spans = stage.timeline.spans
    assert [span.phase for span in spans] == ["starting", "loading", "warming", "ready", "starting"]
    assert [span.cause for span in spans] == [None, None, None, None, "crashed with SIGSEGV"]


def test_steps_of_a_start_are_timed() -> None:
    """Of the newest ready worker, the time of each step is known."""
    stage = Stage()
    stage.start(1, 100.0)

    assert stage.timeline.last_start == Start(generation=1, steps={"starting": 1.0, "loading": 2.0, "warming": 3.0})


def test_successors_steps_are_timed() -> None:
    """A worker that is prepared beside the one that serves has its steps timed just the same."""
    stage = Stage()
    stage.start(1, 100.0)
    course: tuple[tuple[Phase, float], ...] = (("starting", 200.0), ("loading", 202.0), ("warming", 205.0))
    for phase, since in course:
        stage.publish(successor=SuccessorStatus(generation=2, phase=phase, since=since))
    stage.publish(successor=None, generation=2, since=209.0)

    assert stage.timeline.last_start == Start(generation=2, steps={"starting": 2.0, "loading": 3.0, "warming": 4.0})


def test_warmups_are_counted_once_for_each_generation() -> None:
    """Outcomes and sources count once for each worker that became ready."""
    stage = Stage()
    stage.start(1, 100.0)
    stage.publish(warm=False)
    stage.publish(warm=True)
    stage.start(2, 200.0)

    assert stage.timeline.warmups == {"succeeded": 2}
    assert stage.timeline.prefixes == {"restored": 4, "prefilled": 2}


def test_departures_are_counted_by_class() -> None:
    """Each new departure counts once; those of an earlier daemon, and one that another took the place of, don't."""
    stage = Stage(died(7, "killed by SIGKILL, not by Stoker"))
    stage.departures.append(died(1))
    stage.publish(since=101.0)
    stage.departures.append(died(2, "restart", expected=True))
    stage.publish(since=102.0)
    stage.departures.pop(0)
    stage.publish(since=103.0)

    assert stage.timeline.restarts == {"crashed": 1, "requested": 1}


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        ("killed by SIGKILL, not by Stoker", "killed"),
        ("killed by SIGKILL: the system was out of memory", "memory"),
        ("crashed with SIGSEGV", "crashed"),
        ("exited with code 1", "exited"),
        ("said no hello within 10 s of its start", "silent"),
        ("loading made no progress for 120 s", "silent"),
        ("silent: no token for 60 s in the middle of an answer", "silent"),
        ("poisoned: 5 answers in a row were empty or failed", "poisoned"),
        ("the worker broke the protocol: not JSON", "protocol"),
        ("the moon was full", "other"),
    ],
)
def test_causes_have_classes(cause: str, expected: str) -> None:
    """Each cause that `docs/operations.md` names has a class, and there are few of them."""
    assert cause_class(died(1, cause)) == expected
    assert expected in CLASSES


def test_recycling_for_memory_is_not_on_request() -> None:
    """A worker that the daemon itself replaces for its memory counts as that, though its end was ordered."""
    cause = "its memory of 9000 MiB is over the ceiling of 8000 MiB"

    assert cause_class(died(1, cause, expected=True)) == "memory"
    assert cause_class(died(1, "restart", expected=True)) == "requested"


def test_rewarm_changes_no_phase() -> None:
    """A rewarm makes the span warm, and no new one."""
    stage = Stage()
    stage.start(1, 100.0)
    stage.publish(warm=False)
    before = stage.timeline.spans
    stage.publish(warm=True)

    assert not before[-1].warm
    assert stage.timeline.spans[-1].warm
    assert len(stage.timeline.spans) == len(before)


def test_old_spans_are_dropped() -> None:
    """A crash loop doesn't fill the memory."""
    stage = Stage()
    for generation in range(2, 40):
        stage.start(generation, 1000.0 * generation)

    assert len(stage.timeline.spans) == SPANS_KEPT
    assert len(stage.timeline._entered) == 1
