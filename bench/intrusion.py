"""A long prompt beside others: a client that leaves in the middle of it, and streams that run while it joins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from bench import rivals
from bench.load import Client, abandon, asking
from bench.parallel import requests, wave
from bench.rivals import STOKER, Server, cells, in_turns
from stoker.bench.children import POLL, BenchmarkError
from stoker.bench.prompts import system_prompt, user_text
from stoker.bench.report import Check, Difference, Json, Ratio, Section, Series
from stoker.bench.stopwatch import chat
from stoker.ipc.messages import Load

CHUNK = Load(model="", cache_dir="").chunk_seconds
"""Seconds of one prefill chunk, which is how long whoever leaves may hold up the next one."""
STAY = 1.0
"""Seconds after which the client leaves, or half of what the prefill takes where that is less."""
ENDLESS = 2000
"""Tokens that running streams may have; they are left when the long prompt has its first token."""
HEARD = 3
"""Pieces that each running stream has had before the long prompt joins."""

LEAVE_METHOD = (
    f"A client sends a prompt that was never seen, and closes its connection {STAY:g} s later, or in the middle of "
    "the prefill where that is sooner; at once another one sends a short request. Its time to the first piece of "
    "content, and that of such a request when nothing was before it. More than that is what the one who left still "
    "costs."
)
JOIN_METHOD = (
    "While some streams run, a prompt joins that was never seen. Times between pieces of the running streams, from "
    "its request to its first piece of content; the 99th percentile over all trials."
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is asked.

    Attributes:
        repeats: Trials.
        prompt_tokens: Of the long prompt, about.
        streams: That run while it joins.
    """

    repeats: int
    prompt_tokens: int
    streams: int


# -- one who leaves ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Left:
    """Seconds to the first token of a short request: with nothing before it, and after someone left."""

    alone: float
    after: float


def leave_section(servers: Sequence[Server], plan: Plan, say: Callable[[str], None]) -> Section:
    """Measure it, and make the table."""
    stays: dict[str, float] = {}
    for server in servers:
        say(f"a client leaves: {server.name}, how long the prompt takes")
        name = "leaving, all of it"
        (whole,) = wave(server, requests(1, 1, name, system_prompt(plan.prompt_tokens, name))).streams
        stays[server.name] = min(STAY, whole.first / 2)

    def trial(server: Server, index: int) -> Left:
        say(f"a client leaves: {server.name} {index + 1} of {plan.repeats}")
        name = f"leaving, trial {index}"
        long, stay = _long(server, name, plan), stays[server.name]
        return asking(server.url, lambda client: _left(client, server, name, long, stay))

    made = in_turns(servers, plan.repeats, trial)
    return leaving({name: _both(trials) for name, trials in made.items()})


def _long(server: Server, name: str, plan: Plan) -> Json:
    return chat(system_prompt(plan.prompt_tokens, name), "Hello", 1, server.model)


async def _left(client: Client, server: Server, name: str, long: Json, stay: float) -> Left:
    alone = await client.follow(chat(None, user_text(f"{name}, alone"), 1, server.model))
    if not await client.leave(long, stay):
        raise BenchmarkError(f"a long prompt was answered within {stay:.3f} s: it could not be left in the middle")
    after = await client.follow(chat(None, user_text(f"{name}, after"), 1, server.model))
    return Left(alone.first, after.first)


def _both(trials: Sequence[Left]) -> tuple[Series, Series]:
    return Series.of(each.alone for each in trials), Series.of(each.after for each in trials)


def leaving(found: dict[str, tuple[Series, Series]]) -> Section:
    """The table."""
    alone, after = found[STOKER]
    more = Difference.of(after, alone)
    return Section(
        key="leaving",
        title="The next request after a client that left in mid-prefill",
        method=LEAVE_METHOD,
        header=("server", "alone", "after one who left", "more"),
        rows=tuple((name, str(a), str(b), str(Difference.of(b, a))) for name, (a, b) in found.items()),
        data={
            "chunk_seconds": CHUNK,
            "results": [
                {"server": name, "alone": a.data(), "after": b.data(), "more": Difference.of(b, a).data()}
                for name, (a, b) in found.items()
            ],
        },
        checks=(
            Check(
                f"whoever left delays the next one by at most a chunk ({CHUNK:g} s)",
                str(more),
                more.median <= CHUNK,
                target=True,
            ),
        ),
    )


# -- one who joins -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Joined:
    """Gaps of the running streams meanwhile, and the joining request's time to its first token."""

    gaps: tuple[float, ...]
    first: float


def join_section(servers: Sequence[Server], plan: Plan, say: Callable[[str], None]) -> Section:
    """Measure it, and make the table."""

    def trial(server: Server, index: int) -> Joined:
        say(f"a long prompt joins: {server.name} {index + 1} of {plan.repeats}")
        return asking(server.url, lambda client: _joined(client, server, f"joining, trial {index}", plan))

    made = in_turns(servers, plan.repeats, trial)
    return joining(made, plan)


async def _joined(client: Client, server: Server, name: str, plan: Plan) -> Joined:
    running = [_Running(client, server.model, f"{name}, {index}") for index in range(plan.streams)]
    try:
        for one in running:
            await one.begun.wait()
        joined = await client.follow(_long(server, name, plan))
        end = joined.sent + joined.first
        for one in running:
            await one.beyond(end)
    finally:
        await abandon([one.task for one in running])
    return Joined(tuple(chain.from_iterable(one.gaps(joined.sent, end) for one in running)), joined.first)


class _Running:
    """A stream that always runs: when the model has said enough, it is asked for the next story."""

    def __init__(self, client: Client, model: str, name: str) -> None:
        self.begun = asyncio.Event()
        self._client = client
        self._model = model
        self._name = name
        self._stories: list[list[float]] = []
        self.task = asyncio.ensure_future(self._run())
        self.task.add_done_callback(lambda _: self.begun.set())

    async def _run(self) -> None:
        while True:
            self._stories.append([])
            text = user_text(f"{self._name}, story {len(self._stories)}")
            await self._client.follow(chat(None, text, ENDLESS, self._model), self._heard)

    def _heard(self, now: float) -> None:
        self._stories[-1].append(now)
        if len(self._stories[-1]) >= HEARD:
            self.begun.set()

    async def beyond(self, moment: float) -> None:
        """Return when a piece has come after that moment: until then the last gap is open."""
        while not self.task.done() and self._latest() <= moment:  # noqa: ASYNC110 - it is set by what is read
            await asyncio.sleep(POLL)

    def _latest(self) -> float:
        return max((times[-1] for times in self._stories if times), default=0.0)

    def gaps(self, start: float, end: float) -> list[float]:
        """Seconds between pieces of one story, of the silences that reach into this time.

        Raises:
            BenchmarkError, aiohttp.ClientError: The stream failed.
        """
        if not self.task.cancelled() and (error := self.task.exception()):
            raise error
        pairs = chain.from_iterable(map(pairwise, self._stories))
        return [after - before for before, after in pairs if after >= start and before <= end]


def joining(made: dict[str, list[Joined]], plan: Plan) -> Section:
    """The table."""
    gaps = {name: Series.of(chain.from_iterable(each.gaps for each in trials)) for name, trials in made.items()}
    firsts = {name: Series.of(each.first for each in trials) for name, trials in made.items()}
    tails = {name: Series((series.percentile(0.99),)) for name, series in gaps.items()}
    ratio = rivals.sooner(tails)
    return Section(
        key="joining",
        title=f"Gaps of {plan.streams} running streams while a prompt of about {plan.prompt_tokens} tokens joins",
        method=JOIN_METHOD,
        header=("", *rivals.HEADER),
        rows=(
            ("p99 gap", *cells(tails, ratio)),
            ("longest gap", *cells({name: Series((series.high,)) for name, series in gaps.items()}, None)),
            ("median gap", *cells({name: Series((series.median,)) for name, series in gaps.items()}, None)),
            ("first token of the one that joins", *cells(firsts, rivals.sooner(firsts))),
        ),
        data={
            "streams": plan.streams,
            "prompt_tokens": plan.prompt_tokens,
            "gaps": {name: series.data() for name, series in gaps.items()},
            "first": {name: series.data() for name, series in firsts.items()},
        },
        checks=(Check("p99 gap is shorter than the peer's", str(ratio), ratio.median > 1, target=True),)
        if ratio
        else (),
    )


def _ahead(ratio: Ratio) -> tuple[Check, ...]:
    return (Check("p99 gap is shorter than the peer's", str(ratio), ratio.median > 1, target=True),)
