"""Tool calls and reasoning, from a real model's tokens to deltas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stoker.ipc.messages import ChatPrompt, Delta, Finished, Generate, Sampling, TextPrompt, ToolCall
from tests.fakes.driven_core import Answer, DrivenCore
from tests.fakes.scripted_model import EXAMPLES, SCRIPTS, WEATHER, Format, write_scripted_model

PARIS = ToolCall(name="get_weather", arguments='{"city": "Paris"}')
ROME = ToolCall(name="get_weather", arguments='{"city": "Rome"}')


@pytest.fixture(scope="module")
def core(scripted_model: Path) -> DrivenCore:
    return DrivenCore(scripted_model)


def request(script: str, most: int = 200, *, tools: Sequence[dict[str, Any]] = (WEATHER,), **how: Any) -> Generate:
    prompt = ChatPrompt(messages=({"role": "user", "content": script},), tools=tuple(tools))
    return Generate(prompt=prompt, max_tokens=most, **how)


def text_of(answer: Answer, channel: str = "normal") -> str:
    parts = [(delta.channel, delta.text) for delta in answer.deltas]
    return "".join(
        text for name, text in [*parts, (answer.finished.channel, answer.finished.text)] if name == channel
    )


def calls_of(answer: Answer) -> list[ToolCall]:
    return [call for delta in answer.deltas for call in delta.calls]


def seen(answer: Answer, deltas: Sequence[Delta]) -> list[Any]:
    """What a client sees, however it is cut into deltas: text by channel in order, and calls."""
    told: list[Any] = []
    for delta in deltas:
        told += [(delta.channel, letter) for letter in delta.text]
        told += delta.calls
    return told


@pytest.mark.parametrize(
    ("script", "text", "calls"),
    [
        ("plain", SCRIPTS["plain"], []),
        ("one call", "", [PARIS]),
        ("two calls", "", [ROME, ToolCall(name="get_weather", arguments='{"days": 2, "city": "Oslo"}')]),
        ("text then call", "Let me see. ", [ToolCall(name="get_weather", arguments='{"city": "Bern"}')]),
        ("broken call", SCRIPTS["broken call"], []),
        ("odd call", SCRIPTS["odd call"], []),
        ("open call", "", [ToolCall(name="get_weather", arguments='{"city": "Kyiv"}')]),
    ],
)
def test_calls_are_read(core: DrivenCore, script: str, text: str, calls: list[ToolCall]) -> None:
    """Complete calls come as calls, each once, and all else as text; the answer ends with `stop`."""
    answer = core.generate(request(script))

    assert (text_of(answer), calls_of(answer)) == (text, calls)
    assert text_of(answer, "tool") == ""
    assert (answer.finished.reason, answer.finished.stop) == ("stop", None)


def test_reasoning_is_told_from_the_answer(core: DrivenCore) -> None:
    """Reasoning comes in its channel, whether the model or the template opened it."""
    answer = core.generate(request("reasoned"))
    opened = core.generate(request("opened"))

    assert text_of(answer, "reasoning") == "Is it warm? I look."
    assert text_of(answer) == "\n\nYes, quite warm today."
    assert text_of(opened, "reasoning") == "So the user greets me."
    assert text_of(opened) == "\n\nGood evening, dear friend!"


def test_call_after_reasoning(core: DrivenCore) -> None:
    """The blank line between reasoning and call is no text."""
    answer = core.generate(request("thought then call"))

    assert text_of(answer, "reasoning") == "Ask the service."
    assert text_of(answer) == ""
    assert calls_of(answer) == [ToolCall(name="get_weather", arguments='{"city": "Wien"}')]


def test_call_cut_by_max_tokens_is_text(core: DrivenCore) -> None:
    """A call that max_tokens cuts is given as text, from its mark on, and the answer ends with `length`."""
    whole = core.generate(request("one call"))
    for most in range(1, len(whole.tokens)):
        answer = core.generate(request("one call", most))

        assert calls_of(answer) == []
        assert text_of(answer)
        assert SCRIPTS["one call"].startswith(text_of(answer))
        assert answer.finished.reason == "length"


def test_one_call_only(core: DrivenCore) -> None:
    """Where calls may not be parallel, the answer ends with the first, and computes nothing more."""
    answer = core.generate(request("two calls", parallel_calls=False))

    assert calls_of(answer) == [ROME]
    assert (answer.finished.reason, answer.finished.stop, text_of(answer)) == ("stop", None, "")
    assert answer.finished.usage.completion_tokens < len(core.generate(request("two calls")).tokens)


def test_a_text_prompt_has_no_tools(core: DrivenCore) -> None:
    """A text that calls a tool is a text."""
    answer = core.generate(Generate(prompt=TextPrompt(text="<|script:one call|>"), max_tokens=200))

    assert text_of(answer) == SCRIPTS["one call"]
    assert calls_of(answer) == []


@pytest.mark.parametrize("tools", ["json_tools", "mistral", "qwen3_coder"])
@pytest.mark.parametrize("parallel", [True, False], ids=["parallel", "single"])
def test_resumed_at_any_token(tools: Format, parallel: bool, tmp_path: Path) -> None:
    """Cut at any token, a client sees of two workers together what it would have seen of one."""
    write_scripted_model(tmp_path / "m", tools=tools)
    core = DrivenCore(tmp_path / "m")
    for script in EXAMPLES[tools]:
        whole = core.generate(request(script, parallel_calls=parallel))
        before: list[Delta] = []
        for cut in range(1, len(whole.tokens) + 1):
            emitted = whole.tokens[:cut]
            before = deltas_until(whole, cut)
            rest = core.generate(request(script, parallel_calls=parallel, emitted=emitted))

            assert emitted + rest.tokens == whole.tokens
            assert seen(rest, before + ended(rest)) == seen(whole, ended(whole))
            assert (rest.finished.reason, rest.finished.stop) == (whole.finished.reason, whole.finished.stop)


def deltas_until(answer: Answer, tokens: int) -> list[Delta]:
    """The deltas of the first steps, which gave so many tokens: all that a step sent was sent together."""
    count = 0
    kept = []
    for delta in answer.deltas[: len(answer.deltas)]:
        if delta.tokens and count == tokens:
            break
        count += len(delta.tokens)
        kept.append(delta)
    return kept if tokens < len(answer.tokens) else [delta for delta in kept if delta not in at_the_end(answer)]


def at_the_end(answer: Answer) -> list[Delta]:
    """Deltas that come with the result, after the last token's: the worker died before it could send them."""
    last = max(place for place, delta in enumerate(answer.deltas) if delta.tokens)
    return answer.deltas[last + 1 :]


def ended(answer: Answer) -> list[Delta]:
    result = answer.finished
    assert isinstance(result, Finished)
    return [*answer.deltas, Delta(target=0, tokens=(), text=result.text, channel=result.channel)]


def test_mistral_calls_end_with_the_answer(tmp_path: Path) -> None:
    """Of a format without an end mark, calls are read at the answer's end, in both of its forms."""
    write_scripted_model(tmp_path / "m", tools="mistral")
    core = DrivenCore(tmp_path / "m")
    one, two, broken = (core.generate(request(script)) for script in ("one call", "two calls", "broken call"))

    assert (text_of(one), calls_of(one)) == ("Well: ", [PARIS])
    assert calls_of(two) == [ROME, ToolCall(name="get_weather", arguments='{"city": "Oslo", "days": 2}')]
    assert text_of(broken) == EXAMPLES["mistral"]["broken call"]


def test_arguments_that_are_no_json(tmp_path: Path) -> None:
    """XML arguments become JSON, typed by the tool's schema."""
    write_scripted_model(tmp_path / "m", tools="qwen3_coder")
    answer = DrivenCore(tmp_path / "m").generate(request("one call"))

    assert calls_of(answer) == [ToolCall(name="get_weather", arguments='{"city": "Paris", "days": 3}')]


def test_sampling_says_the_same(core: DrivenCore) -> None:
    """A scripted model is as sure at ordinary temperatures: the fixture serves tests of sampled answers."""
    answer = core.generate(request("plain", sampling=Sampling(temperature=1.0, seed=3)))

    assert text_of(answer) == SCRIPTS["plain"]
