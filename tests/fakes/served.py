"""A real daemon over a real model, for tests whose clients are blocking SDKs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from tests.fakes.running_daemon import RunningDaemon


@contextmanager
def served(model: Path | str, environ: dict[str, str] | None = None) -> Iterator[str]:
    """The URL of a ready daemon; it is gone at the end of the block. Nobody's configuration counts."""
    daemon = RunningDaemon(model, {"STOKER_CONFIG": "/dev/null", **(environ or {})})
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(daemon):
        portal.call(daemon.ready)
        yield portal.call(daemon.status).http
