"""The fake worker's fast mode: one step for all."""

from __future__ import annotations

from stoker.ipc.framing import Notification, Request, Response
from stoker.ipc.messages import Cancel, Finished, Step
from tests.fakes.fake_daemon import GENERATE, FakeDaemon, Start
from tests.fakes.fake_scenario import answer

BATCH = {"generate": {"batch": {"steps_per_second": 1000, "wait_for": 2}}}


def begin(daemon: FakeDaemon) -> None:
    daemon.welcome()
    for request_id in (1, 2):
        daemon.send(Request(request_id, GENERATE))


def steps_and_ends(daemon: FakeDaemon) -> tuple[list[Step], dict[object, str]]:
    """What comes until both requests are answered."""
    steps: list[Step] = []
    ends: dict[object, str] = {}
    for frame in daemon.frames:
        match frame:
            case Notification(body=Step() as step):
                steps.append(step)
            case Response(id=request_id, result=Finished(reason=reason)):
                ends[request_id] = reason
        if len(ends) == 2:
            break
    return steps, ends


def test_answers_advance_together(start: Start) -> None:
    """Steps begin once all have come, and each holds a delta of every running answer."""
    daemon = start(BATCH)
    begin(daemon)
    steps, ends = steps_and_ends(daemon)

    assert ends == {1: "length", 2: "length"}
    assert [len(step.deltas) for step in steps] == [2] * 6
    for place in range(2):
        assert tuple(step.deltas[place].tokens[0] for step in steps) == answer(GENERATE, 6)


def test_cancelled_answer_leaves_the_batch(start: Start) -> None:
    """A cancel ends one answer with the next step; the other goes on to its end."""
    daemon = start({"generate": {"batch": {"steps_per_second": 20, "wait_for": 2}}})
    begin(daemon)
    next(frame for frame in daemon.frames if isinstance(frame, Notification) and isinstance(frame.body, Step))
    daemon.send(Notification(Cancel(target=1)))
    steps, ends = steps_and_ends(daemon)

    assert ends == {1: "cancelled", 2: "length"}
    assert [delta.target for delta in steps[-1].deltas] == [2]
