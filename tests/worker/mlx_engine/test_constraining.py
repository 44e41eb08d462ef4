"""Answers that must fit a grammar: random models forced to write JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import (
    ChatPrompt,
    JsonConstraint,
    Sampling,
    TextPrompt,
)
from stoker.worker.mlx_engine.constraining import Constrained
from tests.fakes.bound_answers import PERSON, SAMPLED
from tests.fakes.driven_core import DrivenCore, ask
from tests.fakes.tiny_models import Kind


@pytest.fixture(scope="module")
def core(tiny_llama: Path) -> DrivenCore:
    return DrivenCore(tiny_llama)


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_answer_fits_the_schema(core: DrivenCore, seed: int | None) -> None:
    """A random model answers with a value of the schema, greedy or sampled, and then ends by itself."""
    sampling = Sampling() if seed is None else Sampling(temperature=1.0, seed=seed)
    answer = core.generate(ask("Who?", 200, constraint=JsonConstraint(schema=PERSON), sampling=sampling))
    value = json.loads(answer.text)

    assert answer.finished.reason == "stop"
    assert set(value) == {"name", "age", "trade"}
    assert isinstance(value["name"], str)
    assert value["age"] in range(151)
    assert value["trade"] in {"smith", "stoker"}


def test_any_object(core: DrivenCore) -> None:
    """Without a schema the answer is the beginning of an object, from its first character."""
    answer = core.generate(ask("Who?", 20, constraint=JsonConstraint(), sampling=SAMPLED))

    assert answer.text.startswith("{")


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=["greedy", "sampled"])
def test_resumed_at_any_token(core: DrivenCore, sampling: Sampling) -> None:
    """Cut anywhere, a constrained answer goes on exactly."""
    body = ask("Who?", 200, constraint=JsonConstraint(schema=PERSON), sampling=sampling)
    whole = core.generate(body)
    for cut in (1, 2, 5, 11, 20, len(whole.tokens) - 1, len(whole.tokens)):
        again = ask("Who?", 200, constraint=body.constraint, sampling=sampling, emitted=whole.tokens[:cut])
        rest = core.generate(again)

        assert whole.tokens[:cut] + rest.tokens == whole.tokens
        assert rest.finished.reason == "stop"


def test_neighbours_change_nothing(core: DrivenCore) -> None:
    """In a batch with free and otherwise constrained neighbours each answer is what it is alone."""
    bodies = [
        ask("Who?", 60, constraint=JsonConstraint(schema=PERSON)),
        ask("Once upon a time", 60),
        ask("Who?", 60, constraint=JsonConstraint(schema={"type": "array", "items": {"type": "integer"}})),
        ask("Once upon", 60, sampling=SAMPLED),
    ]
    alone = [core.generate(body).tokens for body in bodies]
    together = [core.submit(body) for body in bodies]

    assert [core.finish(each).tokens for each in together] == alone


@pytest.mark.parametrize("kind", ["llama", "sliding", "hybrid"])
def test_each_kind_of_model(tiny_model: Callable[[Kind], Path], kind: Kind) -> None:
    """Whatever the model's KV is, its answers can be constrained."""
    answer = DrivenCore(tiny_model(kind)).generate(ask("Who?", 200, constraint=JsonConstraint(schema=PERSON)))

    assert json.loads(answer.text)["trade"] in {"smith", "stoker"}


@pytest.mark.parametrize(
    "schema",
    [{"type": "objekt"}, {"$ref": "#/nowhere"}, {"not": {"type": "string"}}, {"type": "string", "pattern": "(?=a)"},
     False, {"allOf": [{"type": "string"}, {"type": "integer"}]}],
    ids=["type", "reference", "keyword", "pattern", "false", "impossible"],
)  # fmt: skip
def test_schema_that_cannot_be_used(core: DrivenCore, schema: Any) -> None:
    """A wrong, unknown or impossible schema is refused, by the field's name, and others go on."""
    error = core.generate(ask("Who?", constraint=JsonConstraint(schema=schema))).error

    assert error.code == ErrorCode.INVALID_PARAMS

    assert error.data.field == "constraint.schema"
    assert core.generate(ask("Who?", 3)).finished.reason == "length"


class Listening:
    """A matcher that takes all tokens and allows one."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def consume_token(self, token: int) -> bool:
        self.heard.append(token)
        return True

    def compute_bitmask(self) -> bytes:
        return b"\x20\x00"

    def is_error(self) -> bool:
        return False


def allowed(constrained: Constrained) -> list[int]:
    """Tokens that a mask leaves, of ten."""
    logits = constrained.mask(mx.zeros((1, 10)))
    return [place for place, logit in enumerate(logits[0].tolist()) if logit == 0]


@pytest.mark.parametrize("end", [(7,), (7, 8)])
def test_reasoning_that_the_template_opened_is_free(end: tuple[int, ...]) -> None:
    """Until the mark that ends the reasoning everything may come; the grammar begins after it."""
    matcher = Listening()
    constrained = Constrained(matcher, 10, ((6,), end), inside=True)
    for token in (1, 2, 8, *end):
        assert allowed(constrained) == list(range(10))
        constrained.heard(token)
    assert allowed(constrained) == [5]
    constrained.heard(5)

    assert matcher.heard == [5]


def test_reasoning_that_the_answer_opens_is_free() -> None:
    """The answer may begin with the mark of reasoning; anywhere else it may not come."""
    matcher = Listening()
    constrained = Constrained(matcher, 10, ((6,), (7,)))
    assert allowed(constrained) == [5, 6]
    for token in (6, 1, 7):
        constrained.heard(token)
    assert allowed(constrained) == [5]
    constrained.heard(5)

    assert matcher.heard == [5]
    plain = Constrained(matcher, 10, ((6,), (7,)))
    plain.heard(5)
    assert allowed(plain) == [5]


def test_closed_reasoning_is_not_opened_again(scripted_model: Path) -> None:
    """Where the template has just closed the reasoning, the answer may not begin with it."""
    core = DrivenCore(scripted_model)
    grammars = core.scheduler._intake.choosers._grammars
    tokenizer = core.scheduler.loaded.tokenizer
    think = tokenizer.think_start_tokens[0]
    prompt = ChatPrompt(messages=({"role": "user", "content": "x"},))
    texts = ("plain", "<think>", "<think>\n\n</think>\n\n")
    begun = [grammars.begin(JsonConstraint(), prompt, tokenizer.encode(text), several=True) for text in texts]

    assert [bool(one._allowed()[think]) for one in begun] == [True, False, False]
    assert [one._reasoning is not None for one in begun] == [False, True, False]


def test_without_the_library(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where llguidance can't be imported, a constraint is refused, and never ignored."""
    monkeypatch.setitem(sys.modules, "llguidance", None)
    core = DrivenCore(tiny_llama)

    assert core.generate(ask("Who?", constraint=JsonConstraint())).error.code == ErrorCode.UNSUPPORTED
    assert core.generate(ask("Who?", 3)).finished.reason == "length"


def test_a_tokenizer_that_cannot_be_used(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tokenizer has no end, or is of a kind that the library doesn't know, a constraint is refused."""
    core = DrivenCore(tiny_llama)
    monkeypatch.setattr(core.scheduler.loaded.tokenizer, "_eos_token_ids", set())
    error = core.generate(ask("Who?", constraint=JsonConstraint())).error

    assert error.code == ErrorCode.UNSUPPORTED
    assert "ends an answer" in error.message


class Broken:
    """A matcher that gives up at its second token."""

    def __init__(self) -> None:
        self.heard = 0

    def consume_token(self, token: int) -> bool:
        self.heard += 1
        return self.heard < 2

    def compute_bitmask(self) -> bytes:
        return b"\xff" * 100

    def is_error(self) -> bool:
        return False

    def get_error(self) -> str:
        return "too complex"


def test_a_grammar_that_fails_in_the_middle(core: DrivenCore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A matcher that gives up fails its own request, which says why, and no neighbour notices."""
    free = core.generate(ask("Once", 12)).tokens
    monkeypatch.setattr(
        core.scheduler._intake.choosers._grammars,
        "begin",
        lambda *_, **__: Constrained(Broken(), core.scheduler.loaded.width),
    )
    neighbour = core.submit(ask("Once", 12))
    error = core.generate(ask("Who?", 12, constraint=JsonConstraint())).error

    assert error.code == ErrorCode.INVALID_PARAMS
    assert "too complex" in error.message
    assert core.finish(neighbour).tokens == free
    assert core.scheduler.figures(0).running == 0


def test_the_end_is_allowed_only_where_the_grammar_accepts(tiny_llama: Path) -> None:
    """End tokens are masked until the value is complete, and then nothing else comes."""
    core = DrivenCore(tiny_llama)
    grammars = core.scheduler._intake.choosers._grammars
    prompt = TextPrompt(text="x")
    constrained = grammars.begin(JsonConstraint(schema={"const": 12}), prompt, [1], several=True)
    ends = core.scheduler.loaded.tokenizer.eos_token_ids
    allowed = []
    for token in b"12":
        allowed.append({int(place) for place in constrained._allowed().nonzero()[0]})
        constrained.heard(token)
    last = {int(place) for place in constrained._allowed().nonzero()[0]}

    assert allowed == [{ord("1")}, {ord("2")}]
    assert last <= ends
    assert last
