"""The daemon as a process: logs opened, event loop run, every expected failure one line and an exit code."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from functools import partial

import anyio
import structlog

from .observe import log_transitions, logging_to, worker_log
from .reload import ReloadListener, Reread
from .runtime_dir import RuntimeDirError
from .service import Reader, Service
from .settings import Settings

EX_OK = 0


def run_daemon(
    settings: Settings,
    warnings: tuple[str, ...] = (),
    *beside: Reader,
    reread: Reread | None = None,
    on_reload: ReloadListener | None = None,
) -> int:
    """Run until stopped.

    Args:
        settings: Checked settings.
        warnings: What the configuration warned of; logged, and part of `status`.
        beside: Further readers of the board, such as the terminal.
        reread: Reads the configuration again, for SIGHUP.
        on_reload: Told when that begins, and what becomes of it.

    Returns:
        The process's exit code.
    """
    with logging_to(settings.log_dir, settings.log_level), closing(worker_log(settings.log_dir)) as sink:
        log = structlog.get_logger("stoker.daemon")
        for warning in warnings:
            log.warning("configuration", warning=warning)
        service = Service(settings, sink, warnings, reread=reread)
        if on_reload is not None:
            service.reloader.listen(on_reload)
        refusal: RuntimeDirError | None = None
        try:
            anyio.run(partial(service.run, log_transitions, *beside))
        except* RuntimeDirError as group:
            refusal = _only(group)
            log.error("not started", cause=str(refusal))  # noqa: TRY400 - the message is all there is to say
    if refusal is None:
        return EX_OK
    sys.stderr.write(f"stoker: {refusal}\n")
    return os.EX_CONFIG


def _only(group: BaseExceptionGroup[RuntimeDirError]) -> RuntimeDirError:
    """The one cause, wrapped once for each task group that it left."""
    first = group.exceptions[0]
    return _only(first) if isinstance(first, BaseExceptionGroup) else first
