"""What a changed configuration means for a daemon that runs: done at once, with a new worker, or not at all.

All or nothing: if one key can't be changed live, none is, so that what runs is always what one configuration says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

import anyio.to_thread
import structlog

from ..ipc.control_messages import ReloadStatus
from .config import ConfigurationError
from .settings import KEYS, Settings

Reread: TypeAlias = Callable[[], tuple[Settings, tuple[str, ...]]]
"""Reads the configuration: settings, and warnings. Raises `ConfigurationError`."""

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

    Attributes:
        status: What became of the last reload; None while there was none.
        warnings: Of the last one that was applied; None while there was none.
    """

    def __init__(
        self, reread: Reread | None, current: Callable[[], Settings], apply: Callable[[Settings, Change], None]
    ) -> None:
        self._reread = reread
        self._current = current
        self._apply = apply
        self.status: ReloadStatus | None = None
        self.warnings: tuple[str, ...] | None = None

    async def reload(self) -> None:
        """Apply what is configured now, all of it or nothing; what became of it is in log and status."""
        try:
            settings, warnings = await anyio.to_thread.run_sync(self._reread or _nothing)
        except ConfigurationError as error:
            self._refuse(str(error))
            return
        except Exception as error:
            # A mistake of ours in reading a file must not end a daemon that serves: the log has it whole.
            log.exception("reload failed")
            self._refuse(f"{type(error).__name__}: {error}")
            return
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


def _nothing() -> tuple[Settings, tuple[str, ...]]:
    raise ConfigurationError("this daemon has no configuration to read again", key=None, source="")
