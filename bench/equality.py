"""Whether answers over HTTP, in whatever batches, are those of mlx-lm itself, alone and in its own process."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.bare import Bare
from bench.load import Client, Stream, asking, together
from bench.rivals import Server
from stoker.bench.prompts import system_prompt, user_text
from stoker.bench.report import Check, Json, Section
from stoker.bench.stopwatch import chat

METHOD = (
    "Random prompts of 20 to 300 tokens, half of them with a system prompt, answers of 4 to 32 tokens, temperature "
    "0. mlx-lm answers them in a process of its own, one after the other (`stream_generate`), from the same model "
    "and with the same BLAS. Then Stoker is asked over HTTP, in waves of 1 to 16 at once, in another order."
)

WAVE = 16
"""Most requests at once."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One prompt."""

    prompt: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is asked; another seed, other prompts in other batches."""

    prompts: int
    seed: int = 1


def questions(plan: Plan) -> list[Json]:
    """Random requests, the same for the same seed."""
    chance = random.Random(plan.seed)  # noqa: S311 - to be repeatable is what is wanted
    return [_question(chance, f"question {plan.seed}.{index}") for index in range(plan.prompts)]


def _question(chance: random.Random, name: str) -> Json:
    system = system_prompt(chance.randint(30, 250), name) if chance.random() < 0.5 else None
    return chat(system, user_text(name), chance.randint(4, 32))


def waves(plan: Plan) -> Iterator[list[int]]:
    """Indices of the questions, shuffled, in groups of random sizes."""
    chance = random.Random(plan.seed)  # noqa: S311 - the same
    order = list(range(plan.prompts))
    chance.shuffle(order)
    while order:
        size = chance.randint(1, WAVE)
        yield order[:size]
        order = order[size:]


def equality_section(server: Server, alone: Bare, plan: Plan, say: Callable[[str], None]) -> Section:
    """Ask, compare, and make the table."""
    asked = questions(plan)
    say(f"equality: mlx-lm answers {plan.prompts} prompts in its own process")
    expected = alone.texts(asked)
    found = [""] * len(asked)
    for group in waves(plan):
        say(f"equality: {server.name} answers {len(group)} at once")
        said = _said(server, [asked[index] for index in group])
        for index, text in zip(group, said, strict=True):
            found[index] = text
    prompts = [each["messages"][-1]["content"] for each in asked]
    return compared([Comparison(*each) for each in zip(prompts, expected, found, strict=True)])


def _said(server: Server, bodies: Sequence[Json]) -> list[str]:
    async def ask(client: Client) -> tuple[Stream, ...]:
        return await together(client, bodies)

    return [stream.text for stream in asking(server.url, ask)]


def compared(answers: Sequence[Comparison]) -> Section:
    """The table."""
    different = [each for each in answers if each.expected != each.found]
    same = f"{len(answers) - len(different)} of {len(answers)}"
    return Section(
        key="equality",
        title="Answers over HTTP, in batches, and mlx-lm's own",
        method=METHOD,
        header=("prompts", "the same text"),
        rows=((str(len(answers)), same),),
        data={
            "prompts": len(answers),
            "different": [
                {"prompt": each.prompt, "expected": each.expected, "found": each.found} for each in different
            ],
        },
        checks=(Check("greedy answers over HTTP are mlx-lm's own, token for token", same, not different),),
    )
