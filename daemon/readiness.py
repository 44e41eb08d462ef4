"""What the daemon says about its readiness: immutable snapshots, published in one place, read by everybody.

Reading the current one needs no await, no lock and no worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

import anyio
import msgspec

from ..ipc.control_messages import (
    PrefixStatus,
    ProgressStatus,
    Readiness,
    SuccessorStatus,
    WarmupStatus,
)
from .lifecycle import Phase, State

RESTING = frozenset({Phase.DOWN, Phase.FAILED})
"""Phases that are not left without a person."""


def describe(
    state: State,
    since: float,
    progress: ProgressStatus | None,
    *,
    successor: SuccessorStatus | None = None,
    replacement_failed: str | None = None,
    departures: int = 0,
) -> Readiness:
    """The public form of a state; `since` is the Unix time at which its phase was entered."""
    warmup = state.warmup
    return Readiness(
        ready=is_serving(state),
        phase=state.phase.value,
        warm=state.warm,
        reason=state.doom or state.reason,
        generation=state.generation,
        since=since,
        warmup=WarmupStatus(
            outcome=warmup.outcome.value if warmup.outcome else None,
            seconds=round(warmup.seconds, 3),
            prefixes=tuple(PrefixStatus.of(report) for report in warmup.prefixes),
        ),
        progress=progress,
        expected=state.phase not in RESTING and (state.wanted or is_serving(state)),
        successor=successor,
        replacement_failed=replacement_failed,
        departures=departures,
    )


def is_serving(state: State) -> bool:
    """Ready, and not a worker whose connection broke and which is only waiting to be reaped."""
    return state.phase is Phase.READY and state.doom is None


class _Node:
    """A link of the chain of snapshots. Who holds one sees all that follow, and what nobody holds is freed."""

    __slots__ = ("next", "retry_at", "superseded", "value")

    def __init__(self, value: Readiness, retry_at: float | None) -> None:
        self.value = value
        self.retry_at = retry_at
        self.superseded = anyio.Event()
        self.next: _Node | None = None


class Watch:
    """An async iterator over snapshots. It holds nothing open, so that leaving it early needs no care."""

    def __init__(self, node: _Node, read: Callable[[_Node], Readiness]) -> None:
        self._node = node  # and no earlier one: it would keep all that followed
        self._told = False
        self._read = read

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Readiness:
        if self._told:
            await self._node.superseded.wait()
            self._node = self._node.next or self._node
        self._told = True
        return self._read(self._node)


class Board:
    """Where snapshots are published.

    Args:
        first: The snapshot before anything happened.
        clock: Monotonic seconds; `retry_at` is measured with it.
    """

    def __init__(self, first: Readiness, clock: Callable[[], float] = anyio.current_time) -> None:
        self._clock = clock
        self._node = _Node(first, None)
        self._listeners: list[Callable[[], None]] = []

    @property
    def current(self) -> Readiness:
        """The newest snapshot, with `retry_after` as of now."""
        return self._as_of_now(self._node)

    def publish(self, readiness: Readiness, retry_at: float | None = None) -> None:
        """Make a snapshot the current one. The same as the current one again wakes nobody who watches."""
        if readiness != self._node.value or retry_at != self._node.retry_at:
            old, self._node = self._node, _Node(readiness, retry_at)
            old.next = self._node
            old.superseded.set()
        for listener in self._listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Have a function called after each publishing, for good. It must neither raise nor wait.

        Also when the snapshot is the same: a retired worker's death, for one, changes nothing in it.
        """
        self._listeners.append(listener)

    def watch(self) -> Watch:
        """Iterate over the current snapshot, then every one that follows; none is missed by a slow reader."""
        return Watch(self._node, self._as_of_now)

    async def wait(self, predicate: Callable[[Readiness], bool], timeout: float) -> Readiness:  # noqa: ASYNC109 - the answer to a timeout is a snapshot, not an exception
        """The first snapshot, from the current one on, that satisfies; after `timeout` seconds the current one."""
        with anyio.move_on_after(timeout):
            async for readiness in self.watch():
                if predicate(readiness):
                    return readiness
        return self.current

    def _as_of_now(self, node: _Node) -> Readiness:
        if node.retry_at is None:
            return node.value
        remaining = max(0.0, node.retry_at - self._clock())
        return msgspec.structs.replace(node.value, retry_after=round(remaining, 1))


NOTHING_YET = describe(State(phase=Phase.STARTING, wanted=True), time.time(), None)
"""The snapshot before the first event: nothing runs, but it is about to."""
