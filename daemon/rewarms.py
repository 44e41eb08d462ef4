"""Rewarms that somebody waits for: each has a ticket, and is the affair of the slot that heard of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import anyio

from ..ipc.messages import WarmPrefix
from .effects import RefuseRewarm
from .lifecycle import Rewarm, WarmupEnded
from .slot import Slot

REPORT_GRACE = 30.0
"""Seconds after a rewarm's timeout in which the worker may still report what it has: one prefill chunk, mostly."""


class RewarmRefused(Exception):
    """There will be no rewarm now; the message says why."""


@dataclass
class _Waiting:
    slot: Slot | None = None
    answer: WarmupEnded | RefuseRewarm | None = None
    done: anyio.Event = field(default_factory=anyio.Event)


class Rewarms:
    """Those under way."""

    def __init__(self) -> None:
        self._tickets = count(1)
        self._waiting: dict[int, _Waiting] = {}

    async def ask(
        self,
        post: Callable[[Rewarm], None],
        prefixes: tuple[WarmPrefix, ...],
        timeout: float,  # noqa: ASYNC109 - the machine's, to which a grace is added
    ) -> WarmupEnded:
        """Post a rewarm, and wait for its end.

        Raises:
            RewarmRefused: If no worker is ready, another rewarm runs, or the worker died over it or fell silent.
        """
        ticket = next(self._tickets)
        waiting = self._waiting[ticket] = _Waiting()
        try:
            post(Rewarm(ticket, prefixes))
            with anyio.move_on_after(timeout + REPORT_GRACE):
                await waiting.done.wait()
        finally:
            del self._waiting[ticket]
        match waiting.answer:
            case WarmupEnded() as ended:
                return ended
            case RefuseRewarm(why=why):
                raise RewarmRefused(why)
        raise RewarmRefused(
            "the worker died during the rewarm; it is being restarted"
            if waiting.done.is_set()
            else "the worker did not report on the rewarm after its timeout"
        )

    def heard(self, ticket: int, slot: Slot) -> None:
        """A slot takes care of it."""
        if waiting := self._waiting.get(ticket):
            waiting.slot = slot

    def answer(self, ticket: int, answer: WarmupEnded | RefuseRewarm) -> None:
        """It ended. Nobody may wait for it any more."""
        if waiting := self._waiting.get(ticket):
            waiting.answer = answer
            waiting.done.set()

    def lose(self, slot: Slot) -> None:
        """The slot's worker is gone, and with it its rewarms."""
        for waiting in self._waiting.values():
            if waiting.slot is slot:
                waiting.done.set()
