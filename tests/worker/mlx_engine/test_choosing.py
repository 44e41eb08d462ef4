"""Choosing tokens with a history: penalties, in batches and through restarts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.ipc.messages import Generate, Sampling
from stoker.worker.mlx_engine.choosing import Chooser
from stoker.worker.mlx_engine.sampling import GREEDY
from tests.fakes.driven_core import DrivenCore, ask, chat
from tests.fakes.tiny_models import PROBES, Kind

PENALISED = Sampling(presence_penalty=0.7, frequency_penalty=0.4, repetition_penalty=1.3, logit_bias={101: 3.0})
ALL_AT_ONCE = Sampling(
    temperature=0.9, seed=8, top_p=0.9, top_k=40, min_p=0.01, presence_penalty=0.5, repetition_penalty=1.1
)
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    seed=st.integers(0, 99),
    top_k=st.sampled_from([0, 1, 7]),
    min_p=st.sampled_from([0.0, 0.1]),
    presence_penalty=st.sampled_from([0.0, 1.0]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.4]),
)
each_kind = pytest.mark.parametrize("kind", ["llama", "sliding", "hybrid"])


@each_kind
@pytest.mark.parametrize("sampling", [PENALISED, ALL_AT_ONCE], ids=["greedy", "sampled"])
def test_resumed_answer_goes_on_exactly(tiny_model: Callable[[Kind], Path], kind: Kind, sampling: Sampling) -> None:
    """Cut anywhere, an answer with penalties resumed by another worker has the tokens of the undisturbed one."""
    whole = DrivenCore(tiny_model(kind)).generate(chat("Be kind.", "tell me", 14, sampling=sampling))
    successor = DrivenCore(tiny_model(kind))
    for cut in range(1, 15):
        body = chat("Be kind.", "tell me", 14, sampling=sampling, emitted=whole.tokens[:cut])

        assert whole.tokens[:cut] + successor.generate(body).tokens == whole.tokens


def test_penalties_change_the_answer(tiny_llama: Path) -> None:
    """Each of them alone changes a greedy answer, and a strong bias dictates it."""
    core = DrivenCore(tiny_llama)
    plain = core.generate(ask(PROBES[0], 30)).tokens
    changes = [
        Sampling(presence_penalty=99.0),
        Sampling(frequency_penalty=0.7),
        Sampling(repetition_penalty=1.2),
        Sampling(logit_bias={65: 99.0}),
    ]
    changed = [core.generate(ask(PROBES[0], 30, sampling=change)).tokens for change in changes]

    assert len({plain, *changed}) == 5
    assert changed[-1] == (65,) * 30
    assert len(set(changed[0])) == 30


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(samplings=st.lists(SAMPLINGS, min_size=2, max_size=4), late=st.integers(0, 6))
def test_neighbours_change_nothing(tiny_llama: Path, samplings: list[Sampling], late: int) -> None:
    """Whatever else is in the batch, and whenever it joins, each answer is what it is alone."""
    core = DrivenCore(tiny_llama)
    bodies = [ask(PROBES[place % 3], 10 + place, sampling=each) for place, each in enumerate(samplings)]
    alone = [core.generate(body).tokens for body in bodies]
    ids = [core.submit(body) for body in bodies[:-1]]
    for _ in range(late):
        core.core.turn()
    ids.append(core.submit(bodies[-1]))

    assert [core.finish(each).tokens for each in ids] == alone


def test_a_plain_sequence_has_no_process() -> None:
    """A sequence that asks for nothing special is sampled with its batch, in one call."""
    assert not Chooser(GREEDY).processes
    assert Chooser(GREEDY).choose(None, mx.array([[0.0, 2.0, 1.0]])).item() == 1


def test_logit_bias_outside_the_vocabulary(tiny_llama: Path) -> None:
    """A bias for a token that isn't there is refused, and the next request served."""
    core = DrivenCore(tiny_llama)
    refused: Generate = ask("x", 3, sampling=Sampling(logit_bias={10**6: 1.0}))

    assert core.generate(refused).error.data.field == "logit_bias"
    assert core.generate(ask("x", 3)).finished.reason == "length"
