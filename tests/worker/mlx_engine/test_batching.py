"""Decoding in a batch; what it shares with decoding one by one is in `test_decoding`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.utils import load_model

from stoker.ipc.messages import Generate, JsonConstraint, Sampling
from stoker.worker.mlx_engine.batching import BatchDecoder, decoder_for
from stoker.worker.mlx_engine.choosing import Chooser
from stoker.worker.mlx_engine.decoding import Decoded, SequentialDecoder, Start
from stoker.worker.mlx_engine.prefill import Prefill
from stoker.worker.mlx_engine.sampling import GREEDY
from tests.fakes.driven_core import Answer, DrivenCore, ask, seeded
from tests.fakes.tiny_models import PROBES, Kind, greedy

NEVER = (256,)


class Counting:
    """A model that counts its forwards, and can fail."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.forwards = 0
        self.rows: list[int] = []
        self.caches: list[str] = []

    def __call__(self, inputs: Any, **how: Any) -> Any:
        self.forwards += 1
        self.caches.append(type(how["cache"][0]).__name__)
        self.rows.append(inputs.shape[0])
        return self._model(inputs, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@pytest.fixture
def model(tiny_llama: Path) -> Any:
    return load_model(tiny_llama)[0]


def start(model: Any, place: int, most: int) -> Start:
    prompt = list(PROBES[place].encode())
    prefill = Prefill(model, prompt)
    while prefill.remaining:
        prefill.step()
    return Start(place, prompt, prefill.kv, greedy(model, prompt, 1)[0], most, Chooser(GREEDY))


@pytest.mark.parametrize("ahead", [False, True])
def test_no_forward_is_wasted(model: Any, ahead: bool) -> None:
    """Newcomers join without a forward of their own, and without looking ahead there is one for each step."""
    counting = Counting(model)
    decoder = BatchDecoder(counting, NEVER, ahead=ahead)
    for place in range(3):
        decoder.add(start(model, place, 6))
    decoded: list[Decoded] = []
    while len(decoder):
        decoded += decoder.step()

    assert counting.rows == [3] * (6 + ahead)
    assert len(decoded) == 18


def test_sequence_alone_is_computed_without_a_batchs_masks(model: Any) -> None:
    """While there is one sequence only, its KV is used as it is; another may join all the same."""
    counting = Counting(model)
    decoder = BatchDecoder(counting, NEVER)
    decoder.add(start(model, 0, 6))
    decoded = [*decoder.step(), *decoder.step()]
    decoder.add(start(model, 1, 4))
    while len(decoder):
        decoded += decoder.step()

    assert counting.caches == ["KVCache"] * 2 + ["BatchKVCache"] * 4
    for place, most in ((0, 6), (1, 4)):
        first, *rest = greedy(model, list(PROBES[place].encode()), 1 + most)
        assert [item.token for item in decoded if item.key == place] == rest, first


def test_an_empty_batch_computes_nothing(model: Any) -> None:
    """Without sequences a step gives nothing, and so does removing one."""
    counting = Counting(model)
    decoder = BatchDecoder(counting, NEVER)

    assert (decoder.step(), decoder.remove(1), counting.forwards) == ([], None, 0)


def test_kind_follows_the_cache(model: Any) -> None:
    """KV caches that can't be merged are decoded one by one."""
    assert isinstance(decoder_for(model, NEVER, batchable=True), BatchDecoder)
    assert isinstance(decoder_for(model, NEVER, batchable=False), SequentialDecoder)


def mix() -> list[Generate]:
    """Requests of each kind of choosing."""
    penalised = Sampling(presence_penalty=0.7, repetition_penalty=1.2)
    return [
        ask(PROBES[0], 20),
        ask(PROBES[1], 14, sampling=penalised, logprobs=2),
        ask(PROBES[2], 25, constraint=JsonConstraint(schema={"type": "array", "items": {"type": "integer"}})),
        ask(PROBES[0], 18, sampling=seeded(3)),
        ask(PROBES[1], 18, sampling=seeded(4)),
        ask(PROBES[1], 9, sampling=Sampling(temperature=1.0, seed=4, top_k=5), stop=("e",)),
    ]


def told(answer: Answer) -> list[tuple[int, ...]]:
    return [tuple(likely.token for likely in entry.top) for delta in answer.deltas for entry in delta.logprobs]


@pytest.mark.parametrize("kind", ["llama", "sliding", "hybrid"])
@pytest.mark.parametrize("decoder", ["ahead", "behind", "alone"])
def test_each_way_of_decoding_gives_the_same(tiny_model: Callable[[Kind], Path], kind: Kind, decoder: str) -> None:
    """Looking ahead or not, in a batch or one by one, each request gets the same tokens, text and probabilities."""
    core = DrivenCore(tiny_model(kind))
    alone = [core.generate(body) for body in mix()]
    scheduler = core.scheduler
    model, ends = scheduler.loaded.model, scheduler.loaded.tokenizer.eos_token_ids
    scheduler._decoder = (
        SequentialDecoder(model, ends) if decoder == "alone" else BatchDecoder(model, ends, ahead=decoder == "ahead")
    )
    answers = [core.finish(request_id) for request_id in [core.submit(body) for body in mix()]]

    for answer, expected in zip(answers, alone, strict=True):
        assert (answer.tokens, answer.text, told(answer)) == (expected.tokens, expected.text, told(expected))
        assert answer.finished.reason == expected.finished.reason
