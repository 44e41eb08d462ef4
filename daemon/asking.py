"""A question to whichever worker is ready, with every way of not being answered put into words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import anyio

from ..ipc.errors import ErrorCode
from ..ipc.messages import Body, Result
from .link import RequestRefused, WorkerLink, WorkerLost
from .steward import Refusal, Snapshots

R = TypeVar("R", bound=Result)

ANSWER_TIMEOUT = 5.0
"""Seconds for the worker's answer, which comes between two decoding steps or prefill chunks; below the time after
which a client gives up (`ipc.control.CALL_TIMEOUT`), so that the client hears why."""

WAIT = "wait for ready: stoker ready --wait"

PASSED_ON: Final[Mapping[int, ErrorCode]] = {
    ErrorCode.UNSUPPORTED: ErrorCode.UNSUPPORTED,
    ErrorCode.METHOD_NOT_FOUND: ErrorCode.UNSUPPORTED,
    ErrorCode.BUSY: ErrorCode.BUSY,
}
"""A worker's errors that mean something to the client, too; among them what another worker than Stoker's says of a
request that it doesn't know. All others are refusals."""


async def ask_ready(
    board: Snapshots,
    serving: Callable[[], WorkerLink | None],
    body: Body,
    answer: type[R],
    within: float = ANSWER_TIMEOUT,
) -> R:
    """Ask the worker that serves.

    Args:
        board: Says what is instead, where no worker is ready.
        serving: The link of the ready worker, if there is one.
        body: The request.
        answer: The type of its result.
        within: Seconds for it.

    Raises:
        Refusal: `NOT_READY` without a ready worker or an answer in time; the worker's own word otherwise.
    """
    link = serving()
    if link is None:
        raise Refusal(f"no worker is ready ({board.current.phase})", WAIT, ErrorCode.NOT_READY)
    try:
        with anyio.fail_after(within):
            return await link.call(body, answer)
    except TimeoutError as error:
        message = f"the worker is busy, and did not answer within {within:g} s"
        raise Refusal(message, "try again", ErrorCode.NOT_READY) from error
    except WorkerLost as error:
        raise Refusal(str(error), WAIT, ErrorCode.NOT_READY) from error
    except RequestRefused as error:
        code = PASSED_ON.get(error.code, ErrorCode.REFUSED)
        raise Refusal(str(error), error.data.remedy, code) from error
