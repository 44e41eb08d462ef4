"""The fake worker's fast mode: all running answers advance together, one `Step` for all of them, as a batch does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from stoker.ipc.framing import Frame, Notification
from stoker.ipc.messages import Delta, Id, Step
from tests.fakes.fake_scenario import text_of


@dataclass
class Sequence:
    """One answer in the batch."""

    id: Id
    tokens: Iterator[int]
    cancelled: threading.Event
    sent: int = 0
    ended: threading.Event = field(default_factory=threading.Event)


class Batch:
    """Sends steps at a steady rate while anything runs.

    Args:
        emit: Sends a frame whole.
        rate: Steps per second; a step that is late is followed at once by the next.
        wait_for: Sequences that must have come before the first step is sent.
    """

    def __init__(self, emit: Callable[[Frame], None], rate: float, wait_for: int) -> None:
        self._emit = emit
        self._pause = 1 / rate
        self._wait_for = wait_for
        self._running: dict[Id, Sequence] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def run(self, sequence: Sequence) -> int:
        """Have a sequence's tokens sent to their end, or until it is cancelled; how many were sent."""
        with self._changed:
            self._running[sequence.id] = sequence
            self._changed.notify()
        sequence.ended.wait()
        return sequence.sent

    def _run(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._running) >= self._wait_for)
        due = time.monotonic()
        while True:
            with self._changed:
                while not self._running:
                    self._changed.wait()
                    due = time.monotonic()
                running = dict(self._running)
            self._step(running)
            due += self._pause
            time.sleep(max(0.0, due - time.monotonic()))

    def _step(self, running: Mapping[Id, Sequence]) -> None:
        deltas = []
        for sequence in running.values():
            token = None if sequence.cancelled.is_set() else next(sequence.tokens, None)
            if token is None:
                with self._changed:
                    del self._running[sequence.id]
                sequence.ended.set()
                continue
            sequence.sent += 1
            deltas.append(Delta(target=sequence.id, tokens=(token,), text=text_of((token,))))
        if deltas:
            self._emit(Notification(Step(deltas=tuple(deltas))))
