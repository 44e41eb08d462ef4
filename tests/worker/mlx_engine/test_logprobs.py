"""Log probabilities, from a real model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model

from stoker.ipc.messages import JsonConstraint, Sampling, TextPrompt, TokenLogprob
from stoker.worker.mlx_engine.logprobs import LEAST, Recorder
from stoker.worker.mlx_engine.token_bytes import TokenBytes
from tests.fakes.driven_core import Answer, DrivenCore, ask, seeded
from tests.fakes.tiny_models import PROBES, Kind

PROMPT = PROBES[1]
CHANGED = Sampling(temperature=0.8, seed=3, top_k=20, presence_penalty=1.5, logit_bias={65: 5.0})


def told(answer: Answer) -> list[TokenLogprob]:
    return [entry for delta in answer.deltas for entry in delta.logprobs]


def expected(core: DrivenCore, tokens: tuple[int, ...]) -> Any:
    """The model's own log probabilities at each token of an answer, in one forward."""
    loaded = core.scheduler.loaded
    prompt = loaded.tokenizer.encode(PROMPT)
    model = load_model(loaded.folder)[0]  # the core's own tells the last position's only
    logits = model(mx.array([*prompt, *tokens])[None])[0, len(prompt) - 1 : -1]
    return np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))


@pytest.mark.parametrize("kind", ["llama", "sliding", "hybrid"])
@pytest.mark.parametrize("sampling", [Sampling(), seeded(3), CHANGED], ids=["greedy", "seeded", "penalties"])
def test_they_are_the_model_s_own(tiny_model: Callable[[Kind], Path], kind: Kind, sampling: Sampling) -> None:
    """However a token was chosen, its log probability and the likeliest ones are the model's own distribution."""
    core = DrivenCore(tiny_model(kind))
    answer = core.generate(ask(PROMPT, 12, logprobs=5, sampling=sampling))
    reference = expected(core, answer.tokens)

    assert [entry.token for entry in told(answer)] == list(answer.tokens)
    for entry, row in zip(told(answer), reference, strict=True):
        assert entry.logprob == pytest.approx(row[entry.token], abs=1e-3)
        assert [likely.logprob for likely in entry.top] == pytest.approx(sorted(row)[:-6:-1], abs=1e-3)
        assert bytes(entry.bytes) == (bytes([entry.token]) if entry.token < 256 else bytes(entry.bytes))


def test_each_token_has_one(tiny_llama: Path) -> None:
    """Each delta has one for each of its tokens; without being asked for there are none; 0 tells no others."""
    core = DrivenCore(tiny_llama)
    asked, plain, alone = (core.generate(ask(PROMPT, 8, logprobs=count)) for count in (20, None, 0))

    assert all(len(delta.logprobs) == len(delta.tokens) for delta in asked.deltas)
    assert [len(entry.top) for entry in told(asked)] == [20] * 8
    assert told(plain) == []
    assert [len(entry.top) for entry in told(alone)] == [0] * 8
    assert asked.tokens == plain.tokens == alone.tokens


def test_neighbours_and_constraints_change_nothing(tiny_llama: Path) -> None:
    """In a batch, and under a constraint that forbids the likeliest tokens, they are the model's own."""
    core = DrivenCore(tiny_llama)
    body = ask(PROMPT, 12, logprobs=3, constraint=JsonConstraint())
    together = [core.submit(body), core.submit(ask("Once", 12)), core.submit(ask("Once", 12, sampling=CHANGED))]
    answers = [core.finish(each) for each in together]
    reference = expected(core, answers[0].tokens)

    assert answers[0].text.startswith("{")
    for entry, row in zip(told(answers[0]), reference, strict=True):
        assert entry.logprob == pytest.approx(row[entry.token], abs=1e-3)
        assert entry.top[0].logprob == pytest.approx(row.max(), abs=1e-3)


def test_resumed_answer_tells_the_rest(tiny_llama: Path) -> None:
    """Cut anywhere, two workers together tell each token once."""
    core = DrivenCore(tiny_llama)
    whole = core.generate(ask(PROMPT, 10, logprobs=2, sampling=seeded(4)))
    for cut in (1, 4, 9):
        rest = core.generate(ask(PROMPT, 10, logprobs=2, sampling=seeded(4), emitted=whole.tokens[:cut]))

        assert [entry.token for entry in told(rest)] == list(whole.tokens[cut:])
        assert [e.logprob for e in told(rest)] == pytest.approx([e.logprob for e in told(whole)[cut:]], abs=1e-3)


@pytest.mark.parametrize("count", [-1, 21])
def test_impossible_number(tiny_llama: Path, count: int) -> None:
    """Fewer than none and more than twenty are refused by name."""
    error = DrivenCore(tiny_llama).generate(ask("x", 3, logprobs=count)).error

    assert error.data.field == "logprobs"


class Letters(TokenBytes):
    def __init__(self) -> None:
        pass

    def __getitem__(self, token: int) -> bytes:
        return b"abcdef"[token : token + 1]


def test_impossible_tokens_and_equal_ones() -> None:
    """Minus infinity is sent as a number, and equally likely tokens come in order of their ids."""
    recorder = Recorder(4, Letters())
    recorder.record(mx.array([[0.0, -math.inf, 0.0, 1.0]]))
    entry = recorder.tell(1)

    assert (entry.logprob, entry.bytes) == (LEAST, (ord("b"),))
    assert [likely.token for likely in entry.top] == [3, 0, 2, 1]


def test_a_text_that_begins_inside_a_character(tiny_llama: Path) -> None:
    """A token that is part of a character gives just its bytes, though its text comes later."""
    core = DrivenCore(tiny_llama)
    half = Sampling(logit_bias={0xF0: 1000.0})
    answer = core.generate(ask("x", 2, logprobs=1, sampling=half))

    assert [entry.bytes for entry in told(answer)] == [(0xF0,), (0xF0,)]
    assert isinstance(ask("x").prompt, TextPrompt)
