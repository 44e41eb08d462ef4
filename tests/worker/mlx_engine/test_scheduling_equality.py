"""Greedy answers are mlx-lm's own, token for token, whatever is computed beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.ipc.messages import Generate, Sampling, TokenPrompt
from tests.fakes.driven_core import DrivenCore
from tests.fakes.tiny_models import VOCABULARY, Kind, write_tiny_model

KINDS: tuple[Kind, ...] = ("llama", "sliding", "hybrid")
ENDS = tuple(b"eRz")
"""Letters that end an answer, so that sequences leave a batch at other times than by their limit."""


@dataclass(frozen=True)
class Asked:
    """One request of a mix.

    Attributes:
        prompt: Token ids.
        most: Of the answer.
        turns: The engine's between this request and the one before it.
        gone: After so many turns more its client leaves; None: it stays.
        sampled: It is a neighbour only, of other sampling.
    """

    prompt: list[int]
    most: int
    turns: int
    gone: int | None = None
    sampled: bool = False


PROMPTS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=90)
MIXES = st.lists(
    st.builds(
        Asked,
        prompt=PROMPTS,
        most=st.integers(1, 24),
        turns=st.integers(0, 5),
        gone=st.none() | st.none() | st.integers(0, 9),
        sampled=st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def ending(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], tuple[DrivenCore, Any, Any]]:
    """An engine, and mlx-lm's model and tokenizer, for each kind: loaded once."""
    made: dict[Kind, tuple[DrivenCore, Any, Any]] = {}

    def make(kind: Kind) -> tuple[DrivenCore, Any, Any]:
        if kind not in made:
            folder = write_tiny_model(kind, tmp_path_factory.mktemp("models") / kind, eos=ENDS)
            model, tokenizer = mlx_lm.load(str(folder))[:2]
            made[kind] = DrivenCore(folder, max_batch=4, chunk_seconds=0.002), model, tokenizer
        return made[kind]

    return make


def reference(model: Any, tokenizer: Any, asked: Asked) -> tuple[tuple[int, ...], str | None]:
    """What mlx-lm's `stream_generate` answers, and why it ends."""
    said = list(mlx_lm.stream_generate(model, tokenizer, mx.array(asked.prompt), max_tokens=asked.most))
    tokens = tuple(int(response.token) for response in said)
    return (tokens[:-1] if said[-1].finish_reason == "stop" else tokens), said[-1].finish_reason


def carried_out(core: DrivenCore, mix: list[Asked]) -> list[int]:
    """Ids of the requests, each sent when its time comes; those whose client leaves are cancelled."""
    ids: list[int] = []
    leaving: list[tuple[int, int]] = []
    turn = 0
    for asked in mix:
        for _ in range(asked.turns):
            core.core.turn()
            turn += 1
            for _when, target in [item for item in leaving if item[0] == turn]:
                core.core.cancel(target)
        sampling = Sampling(temperature=1.0, seed=1) if asked.sampled else Sampling()
        prompt = TokenPrompt(tokens=tuple(asked.prompt))
        ids.append(core.submit(Generate(prompt=prompt, max_tokens=asked.most, sampling=sampling)))
        if asked.gone is not None:
            leaving.append((turn + asked.gone, ids[-1]))
    return ids


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_mlx_lm(ending: Callable[[Kind], tuple[DrivenCore, Any, Any]], kind: Kind) -> None:
    """In float32, for random prompts that join and leave at random times, every answer is mlx-lm's."""
    core, model, tokenizer = ending(kind)

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mix=MIXES)
    def holds(mix: list[Asked]) -> None:
        core.frames.clear()
        answers = [core.finish(request_id) for request_id in carried_out(core, mix)]
        for asked, answer in zip(mix, answers, strict=True):
            if asked.sampled:
                continue
            tokens, reason = reference(model, tokenizer, asked)
            if answer.finished.reason == "cancelled":
                assert answer.tokens == tokens[: len(answer.tokens)]
            else:
                assert (answer.tokens, answer.finished.reason) == (tokens, reason)

    holds()
