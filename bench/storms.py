"""Storms: clients ask a daemon while its workers are struck; what each client got is compared with a calm day."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import anyio

from bench.chaos_faults import Striker
from bench.chaos_requests import Ask, Reply, ask, drawn
from bench.leaks import Held, checks
from stoker.bench import subject
from stoker.bench.report import Check, Json, Section, Series
from stoker.bench.subject import Subject

SETTINGS = {
    "STOKER_RESTART_LIMIT": "1000000",
    "STOKER_BACKOFF_BASE_SEC": "0.001",
    "STOKER_BACKOFF_CAP_SEC": "0.05",
    "STOKER_RESUME_ATTEMPTS": "20",
    "STOKER_MAX_WAITING": "10000",
    "STOKER_STOP_GRACE_SEC": "2",
    "STOKER_FIRST_TOKEN_TIMEOUT_SEC": "10",
    "STOKER_NEXT_TOKEN_TIMEOUT_SEC": "5",
    "STOKER_PROBE_INTERVAL_SEC": "5",
}
"""What a storm needs: a thousand kills are no crash loop here, nobody waits between two of them, and a worker that is
stopped is noticed in seconds."""

SETTLE = 1.0
"""Seconds of calm before what the daemon holds is counted."""
LOOKS = 4
SILENCE = 300.0
"""Seconds in which a client hears nothing before it gives up."""
SAMPLES = 5
"""Troubles quoted in a report."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of a storm. `tokens`: least and most of an answer; `kinds`: faults and their weights."""

    name: str
    requests: int
    strikes: int
    kinds: Mapping[str, int]
    clients: int = 8
    tokens: tuple[int, int] = (16, 64)
    seed: int = 1
    early: float = 0.1


@dataclass
class Outcome:
    """What became of a storm."""

    replies: list[Reply] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    seconds: float = 0.0
    struck: Mapping[str, int] = field(default_factory=dict)
    generations: int = 0
    resumed: int = 0
    before: Held | None = None
    after: Held | None = None

    @property
    def failed(self) -> list[str]:
        """Why requests failed, one for each."""
        return [reply.trouble for reply in self.replies if reply.trouble]

    @property
    def answered(self) -> list[Reply]:
        """What came to a good end."""
        return [reply for reply in self.replies if not reply.trouble]

    def data(self) -> Json:
        """For JSON."""
        return {
            "requests": len(self.replies),
            "answered": len(self.answered),
            "different": len(self.different),
            "failed": len(self.failed),
            "troubles": self.failed[:SAMPLES],
            "differences": self.different[:SAMPLES],
            "seconds": round(self.seconds, 1),
            "struck": dict(self.struck),
            "generations": self.generations,
            "resumed": self.resumed,
            "longest_pause": round(max((reply.pause for reply in self.replies), default=0.0), 3),
            "latency": Series.of(reply.seconds for reply in self.replies).data() if self.replies else None,
            "before": self.before.data() if self.before else None,
            "after": self.after.data() if self.after else None,
        }


def storm(home: Path, settings: Mapping[str, str], plan: Plan) -> Section:
    """Run a storm against a daemon of its own."""
    with subject.running(home, {**SETTINGS, **settings}) as daemon:
        daemon.wait_ready()
        outcome = anyio.run(_Storm(daemon, plan).run)
    return _section(plan, outcome)


class _Storm:
    def __init__(self, daemon: Subject, plan: Plan) -> None:
        self._daemon = daemon
        self._plan = plan
        self._outcome = Outcome()
        self._calm: dict[Ask, Reply] = {}
        self._asks: Iterator[Ask] = iter(())
        self._progress = anyio.Event()
        self._url = ""

    async def run(self) -> Outcome:
        """Ask in calm, then in the storm; look at the daemon before and after."""
        plan, chance = self._plan, random.Random(self._plan.seed)  # noqa: S311 - so that it can be had again
        striker = Striker(self._daemon.pid, self._daemon.control, chance, plan.kinds, plan.early)
        asks = tuple(drawn(plan.seed, plan.requests, plan.tokens))
        async with self._session() as session, striker.watching():
            await striker.ready()
            await self._ask_in_calm(session, asks)
            self._outcome.before = await self._settled()
            began = time.perf_counter()
            await self._rage(session, asks, striker)
            self._outcome.seconds = time.perf_counter() - began
            self._outcome.struck = striker.struck
            await striker.ready()
            self._outcome.after = await self._settled()
        return self._outcome

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        status = await anyio.to_thread.run_sync(self._daemon.status)
        self._url = status.http
        timeout = aiohttp.ClientTimeout(total=None, sock_read=SILENCE)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)  # so that calm leaves no connection open
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            yield session

    async def _ask_in_calm(self, session: aiohttp.ClientSession, asks: tuple[Ask, ...]) -> None:
        for each in dict.fromkeys(asks):
            reply = await ask(session, self._url, each)
            assert reply.trouble is None, f"without any fault: {reply.trouble}"
            self._calm[each] = reply

    async def _settled(self) -> Held:
        held: list[Held] = []
        for _ in range(LOOKS):
            await anyio.sleep(SETTLE / LOOKS)
            held.append(Held.by(self._daemon.pid))
        status = await anyio.to_thread.run_sync(self._daemon.status)
        self._outcome.generations = status.generation
        self._outcome.resumed = status.requests.resumed
        return min(held, key=lambda each: each.descriptors)  # a connection of ours may just be ending

    async def _rage(self, session: aiohttp.ClientSession, asks: tuple[Ask, ...], striker: Striker) -> None:
        self._asks = iter(asks)
        async with anyio.create_task_group() as tasks:
            for _ in range(self._plan.clients):
                tasks.start_soon(self._client, session)
            for number in range(self._plan.strikes):
                await self._answered((number + 1) * len(asks) // (self._plan.strikes + 1))
                await striker.strike()

    async def _client(self, session: aiohttp.ClientSession) -> None:
        for each in self._asks:
            reply = await ask(session, self._url, each)
            self._outcome.replies.append(reply)
            if not reply.trouble and not reply.same(self._calm[each]):
                self._outcome.different.append(f"{each}: {reply.text[:120]!r} {reply.ending}")
            self._progress.set()
            self._progress = anyio.Event()

    async def _answered(self, count: int) -> None:
        """Strikes are spread over the requests, not over time: the same share of both on any machine."""
        while len(self._outcome.replies) < count:
            await self._progress.wait()


METHOD = (
    "Clients ask the daemon over HTTP, half greedy and half seeded, two of three streamed, while its workers are "
    "struck at moments drawn from the seed, some before they are ready. Each answer is compared with the same "
    "request's answer on a calm day: text, finish reason and token counts. The longest pause is between two pieces "
    "of one answer, or before the first. What the daemon holds is counted at rest, before and after."
)


def _section(plan: Plan, outcome: Outcome) -> Section:
    figures = outcome.data()
    struck = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.struck.items()))
    row = (
        plan.name,
        str(plan.clients),
        struck,
        *(str(figures[name]) for name in ("requests", "answered", "different", "failed", "resumed", "generations")),
        f"{figures['longest_pause']:.2f} s",
        f"{figures['seconds']:.0f} s",
    )
    good = (
        Check("no request failed", f"{len(outcome.failed)} {outcome.failed[:1]}", not outcome.failed),
        Check(
            "every answer is that of a calm day",
            f"{len(outcome.different)} differ {outcome.different[:1]}",
            not outcome.different,
        ),
        Check("all requests were answered", str(figures["answered"]), len(outcome.answered) == plan.requests),
    )
    held = checks(outcome.before, outcome.after) if outcome.before and outcome.after else ()
    return Section(
        key=plan.name,
        title=f"Storm: {plan.name}",
        method=f"{METHOD} Seed {plan.seed}.",
        header=(
            "storm",
            "clients",
            "struck",
            "requests",
            "answered",
            "different",
            "failed",
            "resumed",
            "generations",
            "longest pause",
            "took",
        ),
        rows=(row,),
        data=figures,
        checks=(*good, *held),
    )
