"""The fields that chats and completions share."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stoker.ipc.messages import Sampling
from tests.fakes.openai_requests import read, read_text, refusal, text_refusal


@pytest.mark.parametrize("read", [read, read_text], ids=["chat", "completion"])
def test_bare_request_is_greedy(read: Any) -> None:
    """A bare request is greedy, without penalties, and answered whole, once."""
    call = read()

    assert call.bodies[0].sampling == Sampling()
    assert (call.stream, call.include_usage, len(call.bodies)) == (False, False, 1)


@pytest.mark.parametrize("read", [read, read_text], ids=["chat", "completion"])
def test_sampling_reaches_the_worker(read: Any) -> None:
    """Every knob arrives under its name, with the bias of token ids that JSON can only write as text."""
    knobs = {
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 3,
        "top_k": 40,
        "min_p": 0.05,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "repetition_penalty": 1.1,
    }
    call = read(**knobs, logit_bias={"50256": -100, "7": 2.5})

    assert msgspec.structs.asdict(call.bodies[0].sampling) == {**knobs, "logit_bias": {50256: -100.0, 7: 2.5}}


@pytest.mark.parametrize(("stop", "words"), [("a", ("a",)), (["a", "b"], ("a", "b")), ([], ())])
def test_stop_is_a_word_or_a_list(stop: Any, words: tuple[str, ...]) -> None:
    """Both forms of `stop` mean a list of words."""
    assert read(stop=stop).body.stop == words


def test_top_p_zero_is_greedy() -> None:
    """No mass at all leaves the likeliest token, not every token; penalties still count."""
    sampling = read(top_p=0, temperature=2, presence_penalty=1).body.sampling

    assert (sampling.temperature, sampling.top_p, sampling.presence_penalty) == (0, 1, 1)


def test_no_limit_has_two_spellings() -> None:
    """`top_k` of 0 or -1 draws from all tokens."""
    assert read(top_k=-1).body == read(top_k=0).body == read().body


def test_negative_seed_is_a_seed() -> None:
    """Seeds of OpenAI's whole range give the worker a number that it can take, each its own."""
    seeds = [read(seed=seed).body.sampling.seed for seed in (-1, -2, 0, 5, 1 << 80)]

    assert all(seed is not None and 0 <= seed < 1 << 63 for seed in seeds)
    assert len(set(seeds)) == 4, "but for the one that is out of every range"


def test_each_answer_has_a_seed_of_its_own() -> None:
    """Answers to one request differ by their seeds, which come from the request's."""
    seeds = [body.sampling.seed for body in read(n=3, seed=7).bodies]

    assert seeds == [7, 8, 9]
    assert read(n=2).bodies == (read().body,) * 2, "without a seed each draws its own later"


@pytest.mark.parametrize("refusal", [refusal, text_refusal], ids=["chat", "completion"])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 1}, "model"),
        ({"model": None}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"usage": True}}, "stream_options.usage"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 1 << 70}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 1.1}, "min_p"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"logit_bias": {"Hello": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias[...]"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"seed": "x"}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"horoscope": 1}, "horoscope"),
    ],
    ids=str,
)
def test_wrong_field_is_named(refusal: Any, fields: dict[str, Any], param: str) -> None:
    """A field that is unknown, of the wrong type or out of range is named by its path."""
    assert refusal(**fields).fault.param == param
