"""What a changed configuration means for a daemon that runs: done at once, with a new worker, or not at all.

All or nothing: if one key can't be changed live, none is, so that what runs is always what one configuration says.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

import anyio
import structlog
from anyio import RunFinishedError, from_thread
from anyio.lowlevel import current_token

from ..ipc.control_messages import ReloadStatus
from .config import ConfigurationError
from .settings import KEYS, Settings

Reread: TypeAlias = Callable[[], tuple[Settings, tuple[str, ...]]]
"""Reads the configuration: settings, and warnings. Raises `ConfigurationError`."""

ReloadListener: TypeAlias = Callable[[ReloadStatus | None], None]
"""Called with None when a reload begins, and when it is over with what became of it. It neither raises nor waits."""

READ_TIMEOUT = 10.0
"""Seconds for the configuration to be read. A file can hang (on a network, or as a pipe), but whoever asked for the
reload waits for its end."""

log = structlog.get_logger("stoker.daemon")


class Effect(Enum):
    """What changing a key takes."""

    LIVE = "at once"
    WORKER = "with a new worker"
    DAEMON = "not while the daemon runs"


_LIVE = (
    "aliases accept_any_model max_waiting wait_timeout_sec warmup_timeout_sec resume_attempts resume_timeout_sec "
    "hello_timeout_sec load_stall_timeout_sec first_token_timeout_sec next_token_timeout_sec probe_interval_sec "
    "bad_answers_limit memory_ceiling_bytes replacement drain_timeout_sec stop_grace_sec restart_limit "
    "restart_period_sec backoff_base_sec backoff_cap_sec log_level"
)
_WORKER = (
    "model context_tokens prefix_cache_bytes memory_limit_bytes chunk_seconds max_batch worker_command "
    "kv_cache_warmup warmup_system_file warmup learned_prefixes normalise_prompts disk_cache_bytes cache_dir"
)
_DAEMON = "host port socket runtime_dir state_dir log_dir api_keys api_key_file open_endpoints allowed_origins"

EFFECTS: Final[Mapping[str, Effect]] = {
    key: effect
    for effect, keys in ((Effect.LIVE, _LIVE), (Effect.WORKER, _WORKER), (Effect.DAEMON, _DAEMON))
    for key in keys.split()
}
"""What changing each key takes; a test sees to it that none is forgotten."""


@dataclass(frozen=True, slots=True)
class Change:
    """The difference between two configurations, as the keys that differ."""

    live: tuple[str, ...] = ()
    worker: tuple[str, ...] = ()
    daemon: tuple[str, ...] = ()

    @property
    def refusal(self) -> str | None:
        """Why it can't be applied; None where it can."""
        if not self.daemon:
            return None
        keys = ", ".join(self.daemon)
        return f"{keys} can't be changed while the daemon runs, so nothing was: put it back, or stop and start stoker"

    @property
    def empty(self) -> bool:
        """Nothing differs."""
        return not (self.live or self.worker or self.daemon)

    def told(self) -> str:
        """What was done about it, in a line."""
        parts = [("at once: ", self.live), ("with a new worker: ", self.worker)]
        said = [prefix + ", ".join(keys) for prefix, keys in parts if keys]
        return "; ".join(said) or "nothing has changed"


def compare(old: Settings, new: Settings) -> Change:
    """Which keys differ, by what their change takes."""
    differing: dict[Effect, list[str]] = {effect: [] for effect in Effect}
    for key in KEYS:
        if getattr(old, key) != getattr(new, key):
            differing[EFFECTS.get(key, Effect.DAEMON)].append(key)
    return Change(*(tuple(differing[effect]) for effect in Effect))


class Reloader:
    """Reads the configuration again, when asked.

    Args:
        reread: Reads it; None: the daemon was not started from one.
        current: The settings in force.
        apply: Puts others in force.
        warnings: Of the settings in force.

    Attributes:
        status: What became of the last reload; None while there was none.
        warnings: Of the configuration that is in force now.
    """

    def __init__(
        self,
        reread: Reread | None,
        current: Callable[[], Settings],
        apply: Callable[[Settings, Change], None],
        warnings: tuple[str, ...] = (),
    ) -> None:
        self._reread = reread
        self._current = current
        self._apply = apply
        self.status: ReloadStatus | None = None
        self.warnings = warnings
        self._listeners: list[ReloadListener] = []
        self._asked = anyio.Event()

    def ask(self) -> None:
        """Have the configuration read again; asked again meanwhile, it is once more, however often that was."""
        self._asked.set()

    async def keep(self) -> None:
        """Reload whenever it was asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked = anyio.Event()
            await self.reload()

    def listen(self, listener: ReloadListener) -> None:
        """Have each reload's beginning and end told, for good."""
        self._listeners.append(listener)

    async def reload(self) -> None:
        """Apply what is configured now, all of it or nothing; what became of it is in log and status."""
        self._tell(None)
        try:
            settings, warnings = await self._read()
        except ConfigurationError as error:
            self._refuse(str(error))
        except Exception as error:
            # A mistake of ours in reading a file must not end a daemon that serves: the log has it whole.
            log.exception("reload failed")
            self._refuse(f"{type(error).__name__}: {error}")
        else:
            self._put_in_force(settings, warnings)
        self._tell(self.status)

    async def _read(self) -> tuple[Settings, tuple[str, ...]]:
        with anyio.move_on_after(READ_TIMEOUT):
            return await _aside(self._reread or _nothing)
        why = f"the configuration could not be read within {READ_TIMEOUT:g} s, so nothing has changed"
        raise ConfigurationError(why, key=None, source="")

    def _put_in_force(self, settings: Settings, warnings: tuple[str, ...]) -> None:
        change = compare(self._current(), settings)
        if change.refusal is not None:
            self._refuse(change.refusal)
            return
        for warning in warnings:
            log.warning("configuration", warning=warning)
        self.warnings = warnings
        self._apply(settings, change)
        log.info("reloaded", change=change.told())
        self.status = ReloadStatus(at=round(time.time(), 3), outcome="applied", message=change.told())

    def _refuse(self, why: str) -> None:
        log.error("reload refused", cause=why)
        self.status = ReloadStatus(at=round(time.time(), 3), outcome="refused", message=why)

    def _tell(self, status: ReloadStatus | None) -> None:
        for listener in self._listeners:
            listener(status)


async def _aside(read: Reread) -> tuple[Settings, tuple[str, ...]]:
    """Read on a thread that the process does not wait for at its end: a read that hangs can't be called off."""
    outcome: Future[tuple[Settings, tuple[str, ...]]] = Future()
    done, token = anyio.Event(), current_token()

    def run() -> None:
        try:
            outcome.set_result(read())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the result is waited for
            outcome.set_exception(error)
        with suppress(RunFinishedError):  # the daemon ended meanwhile
            from_thread.run_sync(done.set, token=token)

    threading.Thread(target=run, name="reload", daemon=True).start()
    await done.wait()
    return outcome.result()


def _nothing() -> tuple[Settings, tuple[str, ...]]:
    raise ConfigurationError("this daemon has no configuration to read again", key=None, source="")
