"""Decoding, in batches and one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.utils import load_model

from stoker.ipc.messages import Id
from stoker.worker.mlx_engine.batching import BatchDecoder
from stoker.worker.mlx_engine.choosing import Chooser
from stoker.worker.mlx_engine.decoding import Decoded, Decoder, SequentialDecoder, Start
from stoker.worker.mlx_engine.prefill import Prefill
from stoker.worker.mlx_engine.sampling import GREEDY
from tests.fakes.tiny_models import PROBES, Kind, greedy

PROMPTS = [list(probe.encode()) for probe in PROBES]
NEVER = (256,)

Make = Callable[[Any, tuple[int, ...]], Decoder]

MAKERS: dict[str, Make] = {
    "batch": lambda model, ends: BatchDecoder(model, ends, ahead=False),
    "ahead": lambda model, ends: BatchDecoder(model, ends, ahead=True),
    "sequential": SequentialDecoder,
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Make:
    return MAKERS[request.param]


@pytest.fixture
def llama(tiny_llama: Path) -> Any:
    return load_model(tiny_llama)[0]


def start(model: Any, prompt: list[int], most: int, key: Id = 1) -> Start:
    """Prefilled, with its first greedy token."""
    prefill = Prefill(model, prompt)
    while prefill.remaining:
        prefill.step()
    return Start(key, prompt, prefill.kv, greedy(model, prompt, 1)[0], most, Chooser(GREEDY))


def drained(decoder: Decoder, steps: int = 100) -> list[Decoded]:
    decoded: list[Decoded] = []
    for _ in range(steps):
        if not len(decoder):
            break
        decoded += decoder.step()
    return decoded


@pytest.mark.parametrize("kind", ["llama", "sliding", "hybrid"])
def test_mixed_batch_equals_each_alone(tiny_model: Callable[[Kind], Path], make: Make, kind: Kind) -> None:
    """Sequences of other lengths, joining and leaving at other times, get the tokens that each would get alone."""
    model = load_model(tiny_model(kind))[0]
    decoder = make(model, NEVER)
    prompts = {1: PROMPTS[0], 2: PROMPTS[1][20:], 3: PROMPTS[2] * 2}
    decoded: list[Decoded] = []
    for key, prompt in prompts.items():
        decoder.add(start(model, prompt, 5 + 3 * key, key))
        decoded += decoder.step()
        decoded += decoder.step()
    decoded += drained(decoder)

    for key, prompt in prompts.items():
        tokens = tuple(item.token for item in decoded if item.key == key)
        assert tokens == greedy(model, prompt, 6 + 3 * key)[1:]


def test_length_ends_and_leaves_what_was_computed(llama: Any, make: Make) -> None:
    """At its limit a sequence ends with `length`, and the KV that it leaves holds just the tokens given with it."""
    decoder = make(llama, NEVER)
    decoder.add(start(llama, PROMPTS[0], 4))
    last = drained(decoder)[-1]

    assert last.ended == "length"
    assert last.held is not None
    answer = greedy(llama, PROMPTS[0], 20)
    known = last.held.tokens[len(PROMPTS[0]) :]
    assert tuple(known) == answer[: len(known)]
    following = answer[len(known)]
    assert greedy(llama, [following], 5, last.held.kv) == answer[len(known) + 1 : len(known) + 6]


def test_end_token_stops(llama: Any, make: Make) -> None:
    """An end token ends the sequence with `stop`, once it comes."""
    answer = greedy(llama, PROMPTS[0], 6)
    decoder = make(llama, (answer[4],))
    decoder.add(start(llama, PROMPTS[0], 50))
    decoded = drained(decoder)
    first = answer.index(answer[4], 1)

    assert [item.ended for item in decoded] == [None] * (first - 1) + ["stop"]
    assert decoded[-1].token == answer[4]


def test_removed_sequence_leaves_the_others_alone(llama: Any, make: Make) -> None:
    """A removed sequence leaves a KV of exactly its tokens, and the others' tokens don't change."""
    decoder = make(llama, NEVER)
    decoder.add(start(llama, PROMPTS[0], 30, "stays"))
    decoder.add(start(llama, PROMPTS[1], 30, "goes"))
    decoded = [item for _ in range(5) for item in decoder.step()]
    held = decoder.remove("goes")
    decoded += drained(decoder)

    assert decoder.remove("goes") is None
    assert tuple(item.token for item in decoded if item.key == "stays") == greedy(llama, PROMPTS[0], 31)[1:]
    assert held is not None
    answer = greedy(llama, PROMPTS[1], 20)
    known = len(held.tokens) - len(PROMPTS[1])
    assert greedy(llama, [answer[known]], 4, held.kv) == answer[known + 1 : known + 5]


def test_sequence_can_be_removed_before_its_first_step(llama: Any, make: Make) -> None:
    """What was just added and is removed leaves its prompt's KV."""
    decoder = make(llama, NEVER)
    decoder.add(start(llama, PROMPTS[0], 30))
    held = decoder.remove(1)

    assert held is not None
    assert held.tokens == PROMPTS[0]
    assert len(decoder) == 0


def test_bytes_are_counted(llama: Any, make: Make) -> None:
    """The decoder says how many bytes its sequences' KV takes."""
    decoder = make(llama, NEVER)
    empty = decoder.nbytes
    decoder.add(start(llama, PROMPTS[0], 30))
    decoder.step()

    assert empty == 0
    assert decoder.nbytes >= len(PROMPTS[0]) * 512
