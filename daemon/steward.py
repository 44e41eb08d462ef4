"""What the control socket's server needs of the daemon, and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from ..ipc.control_messages import (
    Clearance,
    Counted,
    Measurement,
    PrefixListing,
    Readiness,
    RewarmReport,
    StatusReport,
    StoredListing,
    Verification,
)
from ..ipc.errors import ErrorCode
from ..ipc.messages import WarmPrefix


class Refusal(Exception):
    """Raised by a `Steward` to say no: becomes the error response with these fields."""

    def __init__(self, message: str, remedy: str | None = None, code: ErrorCode = ErrorCode.REFUSED) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy


class Snapshots(Protocol):
    """What the server needs of `readiness.Board`."""

    @property
    def current(self) -> Readiness:
        """The newest snapshot."""

    async def wait(self, predicate: Callable[[Readiness], bool], timeout: float) -> Readiness:  # noqa: ASYNC109
        """The first snapshot that satisfies, or the current one after `timeout` seconds."""

    def watch(self) -> AsyncIterator[Readiness]:
        """The current snapshot and all that follow."""


class Steward(Protocol):
    """Who carries out what clients ask: `service`, or a fake. Any method may raise `Refusal`."""

    @property
    def board(self) -> Snapshots:
        """Where readiness is published."""

    async def status(self) -> StatusReport:
        """Everything the daemon knows."""

    async def restart(self, *, cold: bool) -> None:
        """Begin to replace the worker."""

    async def rewarm(self, prompts: tuple[WarmPrefix, ...]) -> RewarmReport:
        """Warm again; returns when done. Cancelled when the client leaves."""

    async def warm_list(self) -> PrefixListing:
        """Which prefixes are warm or learned."""

    async def warm_pin(self, name: str, *, pinned: bool) -> Counted:
        """Warm a learned prefix at every start, or no longer."""

    async def warm_forget(self, name: str | None) -> Counted:
        """Forget a learned prefix, or without a name all of every model."""

    async def cache_list(self) -> StoredListing:
        """What is on disk."""

    async def cache_verify(self, key: str | None) -> Verification:
        """Read what is on disk and compare; returns when done."""

    async def cache_clear(self, name: str | None, *, foreign: bool) -> Clearance:
        """Delete what is on disk."""

    async def measure(self) -> Measurement:
        """How fast the machine computes for the worker that serves."""

    async def stop(self) -> None:
        """Begin to stop worker and daemon."""


def is_settled(readiness: Readiness) -> bool:
    """Ready, or not going to be by itself: what `wait_ready` waits for."""
    return readiness.ready or readiness.phase == "failed"
