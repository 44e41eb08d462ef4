"""Several streams at once: tokens for each second, and the time to the first token behind a known system prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from bench import rivals
from bench.load import Client, Stream, asking, together
from bench.rivals import Server, cells, in_turns
from stoker.bench.prompts import system_prompt, user_text
from stoker.bench.report import Check, Json, Ratio, Section, Series
from stoker.bench.stopwatch import chat

FASTER: Mapping[int, float] = {1: 1.0, 4: 1.05, 8: 1.2, 16: 1.2}
"""At so many streams, so many times the peer's tokens for each second."""
SOONER: Mapping[int, float] = {1: 1.8}
"""At so many requests, so many times sooner than the peer; at the others ahead of it is enough."""

RATE_METHOD = (
    "So many clients ask at once, each for a long story of its own (temperature 0, no system prompt, streamed, a "
    "connection each); all tokens of the answers, as `usage` counts them, over the time from the first request to "
    "the end of the last stream. The servers take turns, trial by trial, with the same requests."
)
FIRST_METHOD = (
    "From sending a request to its first piece of content. All requests of a trial have one system prompt, which one "
    "request has brought to each server before, and user texts that are new. So many are sent at once."
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


def wave(server: Server, count: int, tokens: int, name: str, system: str | None = None) -> Wave:
    """Ask that many at once; another name, other user texts."""
    bodies = [chat(system, user_text(f"{name}, {index}"), tokens, server.model) for index in range(count)]

    async def ask(client: Client) -> tuple[Stream, ...]:
        return await together(client, bodies)

    return Wave(asking(server.url, ask))


# -- tokens for each second ----------------------------------------------------------------------------------


def rate_section(servers: Sequence[Server], plan: Plan, say: Callable[[str], None]) -> Section:
    """Measure it, and make the table."""
    found: dict[int, dict[str, Series]] = {}
    for count in plan.streams:

        def trial(server: Server, index: int, count: int = count) -> float:
            say(f"{count} streams: {server.name} {index + 1} of {plan.repeats}")
            return wave(server, count, plan.tokens, f"rate of {count}, trial {index}").rate

        made = in_turns(servers, plan.repeats, trial)
        found[count] = {name: Series.of(rates, "tokens/s") for name, rates in made.items()}
    return rates(found)


def rates(found: dict[int, dict[str, Series]]) -> Section:
    """The table."""
    return Section(
        key="throughput",
        title="Tokens per second over HTTP",
        method=RATE_METHOD,
        header=("streams", *rivals.HEADER),
        rows=tuple((str(count), *cells(series, rivals.more(series))) for count, series in found.items()),
        data={"results": [_data(count, series, rivals.more(series)) for count, series in found.items()]},
        checks=tuple(
            Check(
                f"{count} streams: at least {FASTER[count]:g}x the tokens per second",
                str(ratio),
                ratio.median >= FASTER[count],
                target=True,
            )
            for count, series in found.items()
            if count in FASTER and (ratio := rivals.more(series))
        ),
    )


# -- time to the first token ---------------------------------------------------------------------------------


def first_section(servers: Sequence[Server], plan: Plan, say: Callable[[str], None]) -> Section:
    """Measure it, and make the table."""
    system = system_prompt(plan.system_tokens, "the repeated one")
    for server in servers:
        say(f"first tokens: {server.name} hears the system prompt")
        wave(server, 1, 1, "the first of all", system)
    found: dict[int, dict[str, Series]] = {}
    for count in plan.streams:

        def trial(server: Server, index: int, count: int = count) -> list[float]:
            say(f"{count} first tokens: {server.name} {index + 1} of {plan.repeats}")
            asked = wave(server, count, 8, f"first tokens of {count}, trial {index}", system)
            return [each.first for each in asked.streams]

        made = in_turns(servers, plan.repeats, trial)
        found[count] = {name: Series.of(chain.from_iterable(times)) for name, times in made.items()}
    return firsts(found, plan.system_tokens)


def firsts(found: dict[int, dict[str, Series]], system_tokens: int) -> Section:
    """The table."""
    return Section(
        key="first_token",
        title=f"Time to first token behind a known system prompt of about {system_tokens} tokens",
        method=FIRST_METHOD,
        header=("requests at once", *rivals.HEADER),
        rows=tuple((str(count), *cells(series, rivals.sooner(series))) for count, series in found.items()),
        data={
            "system_tokens": system_tokens,
            "results": [_data(count, series, rivals.sooner(series)) for count, series in found.items()],
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


def _data(count: int, series: dict[str, Series], ratio: Ratio | None) -> Json:
    compared = {"ratio": ratio.data()} if ratio else {}
    return {"streams": count, **{name: each.data() for name, each in series.items()}, **compared}
