"""Answers that must call tools, or may: random models forced to call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import (
    ChatPrompt,
    Constraint,
    Generate,
    JsonConstraint,
    Sampling,
    TextPrompt,
    ToolConstraint,
)
from tests.fakes.bound_answers import LOOK, PERSON, POKE, SAMPLED, calls_of, chat
from tests.fakes.driven_core import DrivenCore
from tests.fakes.scripted_model import WEATHER, write_scripted_model


@pytest.fixture(scope="module")
def core(tiny_llama: Path) -> DrivenCore:
    return DrivenCore(tiny_llama)


def test_named_tool_is_called(core: DrivenCore) -> None:
    """The answer is one call of the tool named, its arguments fit its schema, and keywords unknown are left out."""
    answer = core.generate(chat(ToolConstraint(name="look"), LOOK, POKE, sampling=SAMPLED))
    (call,) = calls_of(answer)

    assert call.name == "look"
    assert json.loads(call.arguments)["far"] in {True, False}
    assert (answer.text, answer.finished.reason) == ("", "stop")


def test_any_tool_is_called(core: DrivenCore) -> None:
    """Without a name it is a call of one of the tools, or of several; without parallel calls just one."""
    single = chat(ToolConstraint(), POKE, LOOK, parallel_calls=False, sampling=SAMPLED)
    (call,) = calls_of(core.generate(single))
    many = calls_of(core.generate(chat(ToolConstraint(), POKE, LOOK, sampling=SAMPLED, most=400)))

    assert call.name in {"look", "poke"}
    assert many
    assert all(json.loads(each.arguments).keys() in ({"far"}, {"times"}) for each in many)


@pytest.mark.parametrize("parallel", [True, False])
def test_json_or_calls(core: DrivenCore, parallel: bool) -> None:
    """A random model that may do either does what it likes better, and nothing else; each fits its schema."""
    brace = core.scheduler.loaded.tokenizer.encode("{", add_special_tokens=False)[0]
    done = set()
    for seed, bias in [(seed, bias) for seed in range(1, 7) for bias in ({}, {brace: 100.0})]:
        sampling = Sampling(temperature=1.0, seed=seed, logit_bias=bias)
        constraint = JsonConstraint(schema=PERSON, or_call=True)
        answer = core.generate(chat(constraint, POKE, LOOK, most=600, sampling=sampling, parallel_calls=parallel))
        calls = calls_of(answer)
        done.add("call" if calls else "json")
        if calls:
            assert answer.text == ""
            assert parallel or len(calls) == 1
            assert all(json.loads(each.arguments).keys() in ({"far"}, {"times"}) for each in calls)
        else:
            assert json.loads(answer.text)["trade"] in {"smith", "stoker"}

    assert done == {"call", "json"}


def test_json_or_calls_tells_which_schema_is_wrong(core: DrivenCore) -> None:
    """A schema of the answer that can't be used is told by its field, not as one of the tools."""
    error = core.generate(chat(JsonConstraint(schema={"type": "objekt"}, or_call=True), LOOK)).error

    assert error.data.field == "constraint.schema"


def test_json_or_calls_of_a_model_that_calls_nothing(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a model calls no tools, JSON is what is left."""
    core = DrivenCore(tiny_llama)
    monkeypatch.setattr(core.scheduler.loaded.tokenizer, "_tool_parser", None)
    for seed in range(1, 5):
        sampling = Sampling(temperature=1.0, seed=seed)
        answer = core.generate(chat(JsonConstraint(schema=PERSON, or_call=True), LOOK, sampling=sampling))

        assert json.loads(answer.text)["trade"] in {"smith", "stoker"}


@pytest.mark.parametrize(
    ("constraint", "tools", "field"),
    [(ToolConstraint(name="fly"), (LOOK,), "constraint"), (ToolConstraint(), (), "constraint"),
     (ToolConstraint(), ({"type": "function"},), "tools")],
    ids=["unknown", "none", "shape"],
)  # fmt: skip
def test_tools_that_cannot_be_called(
    core: DrivenCore, constraint: Constraint, tools: Sequence[dict[str, Any]], field: str
) -> None:
    """A call of a tool that isn't offered can't be demanded."""
    error = core.generate(chat(constraint, *tools)).error

    assert error.code == ErrorCode.INVALID_PARAMS

    assert error.data.field == field


def test_text_prompts_have_no_tools(core: DrivenCore) -> None:
    """A tool call can't be demanded of a text prompt."""
    body = Generate(prompt=TextPrompt(text="x"), constraint=ToolConstraint())

    assert core.generate(body).error.code == ErrorCode.INVALID_PARAMS


def test_format_that_is_no_json(tmp_path: Path) -> None:
    """Of a format whose arguments are no JSON, a call can be neither demanded nor bound: the refusal names it."""
    write_scripted_model(tmp_path / "m", tools="qwen3_coder")
    core = DrivenCore(tmp_path / "m")
    for constraint in (ToolConstraint(), JsonConstraint(or_call=True)):
        error = core.generate(chat(constraint, WEATHER)).error

        assert error.code == ErrorCode.UNSUPPORTED
        assert "qwen3_coder" in error.message


@pytest.mark.parametrize("script", ["one call", "two calls"])
def test_mistral_calls_are_json(tmp_path: Path, script: str) -> None:
    """A format without an end mark can be demanded too."""
    write_scripted_model(tmp_path / "m", tools="mistral")
    prompt = ChatPrompt(messages=({"role": "user", "content": script},), tools=(POKE,))
    body = Generate(prompt=prompt, max_tokens=200, constraint=ToolConstraint(name="poke"))
    (call,) = calls_of(DrivenCore(tmp_path / "m").generate(body))

    assert call.name == "poke"
    assert json.loads(call.arguments)["times"] in range(1, 6)
