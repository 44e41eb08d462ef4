"""What the live worker knows of prefixes, and orders about those it learned: asked for over the control socket."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import TypeVar

import anyio

from ..ipc.control_messages import Counted, PrefixListing, PrefixStatus
from ..ipc.errors import ErrorCode
from ..ipc.messages import Body, Figures, Forget, Noted, Pin, Prefixes, PrefixList, Result
from .link import RequestRefused, WorkerLink, WorkerLost
from .steward import Refusal, Snapshots

R = TypeVar("R", bound=Result)

ANSWER_TIMEOUT = 5.0
"""Seconds for the worker's answer, which comes between two decoding steps or prefill chunks; below the time after
which a client gives up (`ipc.control.CALL_TIMEOUT`), so that the client hears why."""

LEARNING_OFF = "learning is switched off: learned_prefixes is 0"
WAIT = "wait for ready: stoker ready --wait"
LIST = "`stoker warm list` shows those there are"

CAN_NOT = frozenset({ErrorCode.UNSUPPORTED, ErrorCode.METHOD_NOT_FOUND})
"""Answers of a worker that doesn't learn: Stoker's own, or another that knows no such request."""


class KnownPrefixes:
    """Asks whichever worker is ready.

    Each method raises `Refusal`: `NOT_READY` without a ready worker or an answer in time, `UNSUPPORTED` where
    nothing is learned, `REFUSED` for a name that no learned prefix has, and for other errors of the worker.

    Args:
        board: Says what is instead, where no worker is ready.
        serving: The link of the ready worker, if there is one.
        learning: Whether the worker is told to learn.
    """

    def __init__(self, board: Snapshots, serving: Callable[[], WorkerLink | None], *, learning: bool = True) -> None:
        self._board = board
        self._serving = serving
        self._learning = learning

    async def listing(self) -> PrefixListing:
        """All of them, and what is wrong with the learned ones."""
        known = await self._ask(Prefixes(), PrefixList)
        notes = known.notes if self._learning else (LEARNING_OFF, *known.notes)
        return PrefixListing(prefixes=known.prefixes, notes=notes)

    async def pin(self, name: str, *, pinned: bool) -> Counted:
        """Warm a learned prefix at every start, or no longer."""
        noted = await self._ask(Pin(name=name, pinned=pinned), Noted)
        return _counted(noted, name)

    async def forget(self, name: str | None) -> Counted:
        """Forget a learned prefix, or without a name all of every model: then none is no error."""
        noted = await self._ask(Forget(name=name), Noted)
        return Counted(count=noted.count) if name is None else _counted(noted, name)

    async def _ask(self, body: Body, answer: type[R]) -> R:
        link = self._serving()
        if link is None:
            raise Refusal(f"no worker is ready ({self._board.current.phase})", WAIT, ErrorCode.NOT_READY)
        try:
            with anyio.fail_after(ANSWER_TIMEOUT):
                return await link.call(body, answer)
        except TimeoutError as error:
            message = f"the worker is busy, and did not answer within {ANSWER_TIMEOUT:g} s"
            raise Refusal(message, "try again", ErrorCode.NOT_READY) from error
        except WorkerLost as error:
            raise Refusal(str(error), WAIT, ErrorCode.NOT_READY) from error
        except RequestRefused as error:
            code = ErrorCode.UNSUPPORTED if error.code in CAN_NOT else ErrorCode.REFUSED
            raise Refusal(str(error), error.data.remedy, code) from error


def latest(warmed: tuple[PrefixStatus, ...], figures: Figures | None) -> tuple[PrefixStatus, ...]:
    """What the last warmup reported, and for what was warmed in idle time since, that."""
    since = {report.name: PrefixStatus.of(report) for report in figures.prefixes} if figures else {}
    return (*(since.pop(report.name, report) for report in warmed), *since.values())


def _counted(noted: Noted, name: str) -> Counted:
    if not noted.count:
        # Shortened: a name as long as a frame may be would make an answer longer than one.
        raise Refusal(f"no learned prefix has the name {reprlib.repr(name)}", LIST)
    return Counted(count=noted.count)
