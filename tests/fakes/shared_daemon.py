"""A daemon that tests share, and what was seen while it started."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass

import aiohttp
import anyio
from anyio.from_thread import start_blocking_portal

from stoker.ipc.control_messages import Readiness, RequestCounts, StatusReport
from tests.fakes.greedy_answers import ask
from tests.fakes.running_daemon import DEADLINE, RunningDaemon


@dataclass(frozen=True)
class SharedDaemon:
    """What tests of one daemon share. They leave it as it is, with the worker that it has.

    Each sends a system prompt of its own, which differs from the others in the first letters, so that nothing is
    cached for one because of another.

    Attributes:
        probes: What `/livez` and `/readyz` said before it was ready.
        before: Its status before anything was sent.
        early: A request's answer, and its cached tokens. It has ended, well or not.
        first: The snapshot when it was ready.
    """

    daemon: RunningDaemon
    url: str
    probes: tuple[int, ...]
    before: StatusReport
    early: futures.Future[tuple[str, int]]
    first: Readiness

    def warm_tokens(self, name: str) -> int:
        """Tokens of the prefix of that name that was warm at the start."""
        (prefix,) = [prefix for prefix in self.first.warmup.prefixes if prefix.name == name]
        return prefix.tokens

    async def idle(self) -> RequestCounts:
        """What it has counted, as soon as no request runs."""
        with anyio.fail_after(DEADLINE):
            while (counts := (await self.daemon.status()).requests).running:  # noqa: ASYNC110 - it is another process
                await anyio.sleep(0.02)
        return counts


@contextmanager
def shared(daemon: RunningDaemon) -> Iterator[SharedDaemon]:
    """Start it, and have it ready; it is gone at the end of the block."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(daemon):
        before = portal.call(daemon.status)
        probes = portal.call(_probed, before.http)
        early = portal.start_task_soon(ask, before.http, "Hello?", "Early.")
        first = portal.call(daemon.ready)
        futures.wait([early], DEADLINE)
        yield SharedDaemon(daemon, before.http, probes, before, early, first)


async def _probed(url: str) -> tuple[int, ...]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DEADLINE)) as http:
        return tuple([(await http.get(f"{url}{path}")).status for path in ("/livez", "/readyz")])
