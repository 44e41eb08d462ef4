"""The thread that computes.

It takes commands between two turns, and blocks only when there is nothing to compute. The engine's libraries are
imported here too, so that the main thread hears the daemon leave even while they are.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ..ipc.errors import ErrorCode
from ..ipc.framing import ErrorResponse
from ..ipc.messages import Id, Job
from .engine import Core, Emit
from .errors import WorkerError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Submit:
    id: Id
    body: Job
    at: float


@dataclass(frozen=True, slots=True)
class _Cancel:
    target: Id


_Command: TypeAlias = _Submit | _Cancel


class EngineThread:
    """An `Engine` around a core.

    Args:
        build: Makes the core; called on the thread.
        emit: Where answers go.
        leave: Ends the process with an exit code: without its engine it is of no use, and would seem alive.
    """

    def __init__(self, build: Callable[[Emit], Core], emit: Emit, leave: Callable[[int], object] = os._exit) -> None:
        self._build = build
        self._emit = emit
        self._leave = leave
        # Unbounded by itself: the session bounds open requests, and sends one cancel for each.
        self._commands: deque[_Command] = deque()
        self._news = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request_id: Id, body: Job) -> None:
        """See `Engine`."""
        self._tell(_Submit(request_id, body, time.perf_counter()))

    def cancel(self, target: Id) -> None:
        """See `Engine`."""
        self._tell(_Cancel(target))

    def close(self) -> None:
        """See `Engine`."""
        with self._news:
            self._closed = True
            self._news.notify()

    def join(self, timeout: float) -> bool:
        """Wait until the thread has ended; False if it has not by then."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _tell(self, command: _Command) -> None:
        with self._news:
            self._commands.append(command)
            self._news.notify()

    def _main(self) -> None:
        try:
            core = self._build(self._emit)
        except ImportError:
            log.exception("the engine's libraries can't be imported")
            self._leave(os.EX_CONFIG)
            return
        try:
            self._run(core)
        except BaseException:
            # Whatever it is, half-done work is lost and nobody would answer for it: the daemon starts a new worker.
            log.exception("the engine failed")
            self._leave(os.EX_SOFTWARE)

    def _run(self, core: Core) -> None:
        while not self._closed:
            idle = core.idle
            commands = self._taken(wait=idle, seconds=core.due if idle else None)
            for command in commands:
                self._obey(core, command)
            if not core.idle or not (commands or self._closed):
                core.turn()

    def _taken(self, *, wait: bool, seconds: float | None = None) -> list[_Command]:
        with self._news:
            if wait:
                # Mostly without a deadline: an idle engine has nothing to do, and the process ends without it.
                self._news.wait_for(lambda: self._commands or self._closed, seconds)
            commands = list(self._commands)
            self._commands.clear()
        return commands

    def _obey(self, core: Core, command: _Command) -> None:
        if isinstance(command, _Cancel):
            core.cancel(command.target)
            return
        try:
            core.handle(command.id, command.body, command.at)
        except WorkerError as error:
            self._emit(error.response(command.id))
        except Exception as error:
            # A request that trips over a mistake of ours before it has begun to compute has harmed no other; to die
            # of it would only give it to the next worker.
            log.exception("a request failed")
            text = f"internal error: {type(error).__name__}: {error}"
            self._emit(ErrorResponse(command.id, ErrorCode.INTERNAL_ERROR, text))
