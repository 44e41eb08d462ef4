"""Several streams at once: tokens for each second, and the time to the first token behind a known system prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

from bench import bare, peer, rivals
from bench.bare import Bare
from bench.load import Client, Stream, asking, together
from bench.rivals import Server, cells, compared, in_turns
from stoker.bench.prompts import system_prompt, user_text
from stoker.bench.report import Check, Json, Ratio, Section, Series
from stoker.bench.stopwatch import chat

Comparing: TypeAlias = Callable[[dict[str, Series], str], Ratio | None]
"""How Stoker compares with the one of that name."""

FASTER: Mapping[int, float] = {1: 1.0, 4: 1.05, 8: 1.2, 16: 1.2}
"""At so many streams, so many times the peer's tokens for each second."""
FORWARD: Mapping[int, float] = {1: 0.92, 4: 0.97, 8: 0.95, 16: 0.98}
"""At so many streams, so much of what the model gives without a server.

That is `FASTER` times what the peer had of it on the machine that those promises were made on: 12, 36, 56 and 88
tokens per second of 13, 39, 71 and 108.
"""
HEADER = (*rivals.HEADER, bare.NAME, "ratio")
"""Of both tables, after the first column."""

SOONER: Mapping[int, float] = {1: 1.8}
"""At so many requests, so many times sooner than the peer; at the others ahead of it is enough."""

RATE_METHOD = (
    "So many clients ask at once, each for a long story of its own (temperature 0, no system prompt, streamed, a "
    "connection each); all tokens of the answers, as `usage` counts them, over the time from the first request to "
    "the end of the last stream. The servers take turns, trial by trial, with the same requests; so does mlx-lm's "
    "batch generator in a process of its own, set up as in mlx-lm's server: what the model gives, whoever serves it."
)
FIRST_METHOD = (
    "From sending a request to its first piece of content. All requests of a trial have one system prompt, which one "
    "request has brought to each server before, and user texts that are new. So many are sent at once. "
    "Without a server: mlx-lm's `generate_step` in a process of its own, with the system prompt's KV in memory."
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is asked.

    Attributes:
        streams: At once.
        repeats: Trials of each.
        tokens: Of each answer, at most.
        system_tokens: Of the repeated system prompt, about.
    """

    streams: tuple[int, ...]
    repeats: int
    tokens: int
    system_tokens: int


@dataclass(frozen=True, slots=True)
class Wave:
    """Requests that were sent at once."""

    streams: tuple[Stream, ...]

    @property
    def rate(self) -> float:
        """Tokens for each second."""
        seconds = max(each.ended for each in self.streams) - min(each.sent for each in self.streams)
        return sum(each.tokens for each in self.streams) / seconds


def wave(server: Server, bodies: Sequence[Json]) -> Wave:
    """Ask all at once."""

    async def ask(client: Client) -> tuple[Stream, ...]:
        return await together(client, [each | {"model": server.model} for each in bodies])

    return Wave(asking(server.url, ask))


def requests(count: int, tokens: int, name: str, system: str | None = None) -> list[Json]:
    """That many; another name, other user texts."""
    return [chat(system, user_text(f"{name}, {index}"), tokens) for index in range(count)]


# -- tokens for each second ----------------------------------------------------------------------------------


def rate_section(servers: Sequence[Server], alone: Bare | None, plan: Plan, say: Callable[[str], None]) -> Section:
    """Measure it, and make the table."""
    found: dict[int, dict[str, Series]] = {}
    for count in plan.streams:

        def trial(server: Server | Bare, index: int, count: int = count) -> float:
            say(f"{count} streams: {server.name} {index + 1} of {plan.repeats}")
            bodies = requests(count, plan.tokens, f"rate of {count}, trial {index}")
            return server.rate(bodies) if isinstance(server, Bare) else wave(server, bodies).rate

        turns: list[Server | Bare] = [*servers, *([alone] if alone else [])]
        made = in_turns(turns, plan.repeats, trial)
        found[count] = {name: Series.of(rates, "tokens/s") for name, rates in made.items()}
    return rates(found)


def rates(found: dict[int, dict[str, Series]]) -> Section:
    """The table."""
    return Section(
        key="throughput",
        title="Tokens per second over HTTP",
        method=RATE_METHOD,
        header=("streams", *HEADER),
        rows=tuple(_row(count, series, rivals.more) for count, series in found.items()),
        data={"results": [_data(count, series, rivals.more) for count, series in found.items()]},
        checks=tuple(chain.from_iterable(_rate_checks(count, series) for count, series in found.items())),
    )


def _rate_checks(count: int, series: dict[str, Series]) -> Iterator[Check]:
    marks = (
        (FASTER.get(count), rivals.more(series), "the tokens per second"),
        (FORWARD.get(count), rivals.more(series, bare.NAME), "what the model gives without a server"),
    )
    for mark, ratio, of in marks:
        if mark is not None and ratio is not None:
            promise = f"{count} streams: at least {mark:g}x {of}"
            yield Check(promise, str(ratio), ratio.median >= mark, target=True)


# -- time to the first token ---------------------------------------------------------------------------------


def first_section(servers: Sequence[Server], alone: Bare | None, plan: Plan, say: Callable[[str], None]) -> Section:
    """Measure it, and make the table."""
    system = system_prompt(plan.system_tokens, "the repeated one")
    known = requests(1, 1, "the first of all", system)
    for server in servers:
        say(f"first tokens: {server.name} hears the system prompt")
        wave(server, known)
    found: dict[int, dict[str, Series]] = {}
    for count in plan.streams:

        def trial(server: Server | Bare, index: int, count: int = count) -> list[float]:
            say(f"{count} first tokens: {server.name} {index + 1} of {plan.repeats}")
            bodies = requests(count, 8, f"first tokens of {count}, trial {index}", system)
            if isinstance(server, Bare):
                return [server.first(known[0], bodies[0])]
            return [each.first for each in wave(server, bodies).streams]

        turns: list[Server | Bare] = list(servers)
        if alone is not None and count == 1:  # several at once wait for each other
            turns.append(alone)
        made = in_turns(turns, plan.repeats, trial)
        found[count] = {name: Series.of(chain.from_iterable(times)) for name, times in made.items()}
    return firsts(found, plan.system_tokens)


def firsts(found: dict[int, dict[str, Series]], system_tokens: int) -> Section:
    """The table."""
    return Section(
        key="first_token",
        title=f"Time to first token behind a known system prompt of about {system_tokens} tokens",
        method=FIRST_METHOD,
        header=("requests at once", *HEADER),
        rows=tuple(_row(count, series, rivals.sooner) for count, series in found.items()),
        data={
            "system_tokens": system_tokens,
            "results": [_data(count, series, rivals.sooner) for count, series in found.items()],
        },
        checks=tuple(
            Check(f"{count} at once: first token {_demand(count)}", str(ratio), _reached(count, ratio), target=True)
            for count, series in found.items()
            if (ratio := rivals.sooner(series))
        ),
    )


def _demand(count: int) -> str:
    return f"at least {SOONER[count]:g}x sooner" if count in SOONER else "ahead"


def _reached(count: int, ratio: Ratio) -> bool:
    return ratio.median >= SOONER[count] if count in SOONER else ratio.median > 1


# -- both tables ---------------------------------------------------------------------------------------------


def _row(count: int, series: dict[str, Series], ratio: Comparing) -> tuple[str, ...]:
    to_peer, to_bare = ratio(series, peer.NAME), ratio(series, bare.NAME)
    return str(count), *cells(series, to_peer), *compared(series, bare.NAME, to_bare)


def _data(count: int, series: dict[str, Series], ratio: Comparing) -> Json:
    ratios = {"ratio": ratio(series, peer.NAME), "ratio_to_bare": ratio(series, bare.NAME)}
    known = {name: each.data() for name, each in ratios.items() if each}
    return {"streams": count, **{name: each.data() for name, each in series.items()}, **known}
