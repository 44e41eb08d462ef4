"""The thread that computes, around a core that counts."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stoker.ipc.errors import ErrorCode
from stoker.ipc.framing import ErrorResponse, Frame, Response
from stoker.ipc.messages import Id, Job, Statistics, Warmed
from stoker.worker.engine import Emit
from stoker.worker.engine_thread import EngineThread
from stoker.worker.errors import NotLoaded

SECONDS = 10.0
DONE = Warmed(outcome="succeeded", prefixes=(), seconds=0.0)


class CountingCore:
    """Each request takes three turns; each method remembers its thread."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.left: dict[Id, int] = {}
        self.threads = {threading.get_ident()}
        self.fault: Exception | None = None
        self.asked = 0
        self.due: float | None = None
        self.turned = threading.Event()

    @property
    def idle(self) -> bool:
        self.asked += 1
        return not self.left

    def handle(self, request_id: Id, body: Job, submitted: float) -> None:
        self.threads.add(threading.get_ident())
        if self.fault is not None:
            raise self.fault
        self.left[request_id] = 3

    def cancel(self, target: Id) -> None:
        self.threads.add(threading.get_ident())
        if self.left.pop(target, None):
            self._emit(Response(target, DONE))

    def close(self, seconds: float) -> None:
        self.left.clear()

    def turn(self) -> None:
        self.turned.set()
        self.threads.add(threading.get_ident())
        for request_id in list(self.left):
            self.left[request_id] -= 1
            if not self.left[request_id]:
                del self.left[request_id]
                self._emit(Response(request_id, DONE))


class Desk:
    """An engine thread and what came out of it."""

    def __init__(self, build: Callable[[Emit], Any] | None = None) -> None:
        self.frames: queue.Queue[Frame] = queue.Queue()
        self.left: queue.Queue[int] = queue.Queue()
        self.built: queue.Queue[CountingCore] = queue.Queue()
        self.engine = EngineThread(build or self._build, self.frames.put, self.left.put)

    def _build(self, emit: Emit) -> CountingCore:
        core = CountingCore(emit)
        self.built.put(core)
        return core

    @property
    def core(self) -> CountingCore:
        core = self.built.get(timeout=SECONDS)
        self.built.put(core)
        return core


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.engine.close()
    assert desk.engine.join(SECONDS)


def test_request_is_computed_on_the_one_thread(desk: Desk) -> None:
    """Building, handling and turning happen on one thread, which is not the caller's."""
    desk.engine.submit(1, Statistics())

    assert desk.frames.get(timeout=SECONDS) == Response(1, DONE)
    assert len(desk.core.threads) == 1
    assert threading.get_ident() not in desk.core.threads


def test_idle_engine_costs_nothing(desk: Desk) -> None:
    """With nothing to compute the thread blocks, instead of asking over and over."""
    desk.engine.submit(1, Statistics())
    desk.frames.get(timeout=SECONDS)

    assert not desk.engine.join(0.05)  # meanwhile it would ask a hundred thousand times
    assert desk.core.asked < 20


def test_refusal_is_answered(desk: Desk) -> None:
    """A typed refusal becomes the request's error, and the thread goes on."""
    desk.core.fault = NotLoaded("no model is loaded")
    desk.engine.submit(1, Statistics())
    refusal = desk.frames.get(timeout=SECONDS)
    desk.core.fault = None
    desk.engine.submit(2, Statistics())

    assert isinstance(refusal, ErrorResponse)
    assert (refusal.id, refusal.code) == (1, ErrorCode.NOT_LOADED)
    assert desk.frames.get(timeout=SECONDS) == Response(2, DONE)


def test_mistake_in_one_request_is_answered(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """An unforeseen exception before anything is computed is that request's error, and is logged."""
    desk.core.fault = ZeroDivisionError("oh")
    desk.engine.submit(1, Statistics())
    refusal = desk.frames.get(timeout=SECONDS)

    assert isinstance(refusal, ErrorResponse)
    assert refusal.code == ErrorCode.INTERNAL_ERROR
    assert "ZeroDivisionError: oh" in refusal.message
    assert "a request failed" in caplog.text


def test_engine_that_cannot_be_imported_ends_the_process() -> None:
    """Without its libraries the process leaves with the exit code of a configuration error."""

    def build(_: Emit) -> CountingCore:
        raise ImportError("no mlx")

    desk = Desk(build)

    assert desk.left.get(timeout=SECONDS) == os.EX_CONFIG
    assert desk.engine.join(SECONDS)


def test_failure_between_requests_ends_the_process(caplog: pytest.LogCaptureFixture) -> None:
    """An exception out of a turn is logged with its traceback and ends the process, whose engine is gone."""

    class Broken(CountingCore):
        def turn(self) -> None:
            raise RuntimeError("the device is gone")

    desk = Desk(Broken)
    with caplog.at_level(logging.ERROR):
        desk.engine.submit(1, Statistics())

        assert desk.left.get(timeout=SECONDS) == os.EX_SOFTWARE
    assert "the device is gone" in caplog.text


def test_cancel_follows_its_request(desk: Desk) -> None:
    """A cancel sent right after a request finds it, and the request is answered once."""
    desk.engine.submit(1, Statistics())
    desk.engine.cancel(1)
    desk.engine.submit(2, Statistics())

    assert {desk.frames.get(timeout=SECONDS), desk.frames.get(timeout=SECONDS)} == {
        Response(1, DONE),
        Response(2, DONE),
    }
    assert desk.frames.empty()


def test_an_idle_core_is_turned_when_it_wants_to_be() -> None:
    """A core that has something to look at later gets a turn then, without any request."""

    def build(emit: Emit) -> CountingCore:
        core = CountingCore(emit)
        core.due = 0.0
        cores.append(core)
        return core

    cores: list[CountingCore] = []
    desk = Desk(build)
    assert desk.engine is not None
    while not cores:
        pass
    assert cores[0].turned.wait(SECONDS)
    desk.engine.close()
    assert desk.engine.join(SECONDS)
