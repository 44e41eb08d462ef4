"""What the gateway needs of the daemon, and no more: `service` fits, and so does a small fake."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ...ipc.control_messages import Readiness, RewarmReport, StatusReport
from ...ipc.messages import CountTokens, Generate, WarmPrefix
from ..dispatch import Output
from ..insight import Insight
from .keys import Access


class Generations(Protocol):
    """Where answers come from."""

    def generate(self, body: Generate) -> AbstractAsyncContextManager[AsyncIterator[Output]]:
        """Events of one generation: `Waiting` while there is no worker, `Started`, progress, deltas, `Finished` last.

        Leaving the block early cancels the generation.

        Raises:
            Unavailable: On entering or iterating; no worker took the request, or none could go on with it.
            RequestFailed: The same; the worker refused the request or failed under it.
        """

    async def count_tokens(self, body: CountTokens) -> int:
        """How many tokens a prompt has. Raises like `generate`."""


class Snapshots(Protocol):
    """Where readiness is published."""

    @property
    def current(self) -> Readiness:
        """The latest snapshot; costs nothing."""

    def watch(self) -> AsyncIterator[Readiness]:
        """The current snapshot and all that follow."""


class Models(Protocol):
    """The names under which the model may be asked for."""

    @property
    def id(self) -> str:
        """The model's own name: of the embedded one, or the last part of its path or hub id."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Further names, as configured."""

    @property
    def accept_any(self) -> bool:
        """Whether every other name means the same model."""


class Backend(Protocol):
    """The daemon, seen from the gateway."""

    @property
    def dispatch(self) -> Generations:
        """Where answers come from."""

    @property
    def board(self) -> Snapshots:
        """Where readiness is published."""

    @property
    def models(self) -> Models:
        """The names under which the model may be asked for."""

    @property
    def host(self) -> str:
        """The address that the API is bound to, as configured: requests may name it in `Host`."""

    @property
    def access(self) -> Access:
        """Who may use the API."""

    @property
    def insight(self) -> Insight:
        """What the daemon observes of itself."""

    async def status(self) -> StatusReport:
        """Everything the daemon knows."""

    async def restart(self, *, cold: bool) -> None:
        """Begin to replace the worker. May raise `steward.Refusal`."""

    async def rewarm(self, prompts: tuple[WarmPrefix, ...]) -> RewarmReport:
        """Warm again; returns when done. May raise `steward.Refusal`."""
