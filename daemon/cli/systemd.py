"""What systemd is told while the daemon runs under it: a reader of the board, like the log.

`READY=1` comes at the first ready, and never before: warmup succeeded or was abandoned by then. Until then the limit
of the start is moved on, because the supervisor has limits of its own for all that a worker may take time for, and
parks in `failed` rather than being killed and started in a circle. The watchdog guards this process; the supervisor
watches the worker.

A reload of the configuration begins with `RELOADING=1` and ends with `READY=1`, applied or refused: sd_notify(3) has
no word for a refusal, so the status says it. Where it takes another worker, that one is not waited for: requests are
answered meanwhile, by the old worker or after a wait, so what systemd orders after the reload may begin; and a reload
counts against `TimeoutStartSec`, which is no measure for a model that is being fetched and warmed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import anyio

from ...ipc.control_messages import Readiness, ReloadStatus
from ...launchd import notify
from ...launchd.notify import Notifier
from ..steward import Snapshots
from .words import headline

EXTENSION = 60.0
"""Seconds by which the start's limit is moved on each time; the unit's own first one is 300."""


def notifier_from(environ: Mapping[str, str]) -> Notifier:
    """The manager that started this process, if one did."""
    return Notifier.of(environ, os.getpid())


class Telling:
    """Run beside the daemon; give it the board.

    Args:
        notifier: The manager's ear.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._ready = False
        self._stopping = False
        self._reloading = False
        self._headline = ""
        self._unheard: list[str] = []

    async def __call__(self, board: Snapshots) -> None:
        """Tell until cancelled; nothing where nobody listens."""
        if not self._notifier.listening:
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_telling)
            async for now in board.watch():
                self._keep(*self._news(now))
                self._headline = headline(now)
                self._tell(notify.status(self._headline))

    def reloading(self, status: ReloadStatus | None) -> None:
        """Tell that a reload begins or, with its status, that it is over.

        Not before the first ready, because the `READY=1` that ends a reload would end the start, too; and not while
        stopping, which is final.
        """
        if status is None:
            # What is not heard is not said again: then there is nothing to be ended, either.
            self._reloading = self._ready and not self._stopping and self._tell(*notify.reloading())
        elif self._reloading and not self._stopping:
            self._reloading = False
            self._keep(notify.ready())
            self._tell(notify.status(f"{self._headline}; reload {status.outcome}: {status.message}"))

    def _news(self, now: Readiness) -> list[str]:
        """What a snapshot is to systemd, and must not get lost."""
        words = []
        if now.ready and not self._ready:
            self._ready = True
            words.append(notify.ready())
        if now.phase == "stopping" and not now.expected:
            self._stopping = True
            words.append(notify.stopping())
        return words

    def _keep(self, *words: str) -> None:
        """Have these told until they are heard, each once, however often it was said meanwhile."""
        self._unheard = [word for word in self._unheard if word not in words] + [*words]

    def _tell(self, *words: str) -> bool:
        heard = self._notifier.tell(*self._unheard, *words)
        if heard:
            self._unheard.clear()
        return heard

    async def _keep_telling(self) -> None:
        """Signs of life, twice as often as they are wanted."""
        watchdog = self._notifier.watchdog or EXTENSION
        while True:
            self._tell(notify.alive() if self._ready else notify.more_time(EXTENSION))
            await anyio.sleep((watchdog if self._ready else min(watchdog, EXTENSION)) / 2)
