"""From a request's bytes to the worker's terms, and every refusal on the way."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.daemon.gateway.errors import ApiError
from stoker.daemon.gateway.openai.request import RESERVED, read_chat
from stoker.daemon.gateway.openai.types import COMPLETION_NEUTRAL, IGNORED, NEUTRAL, ChatRequest, CompletionRequest
from stoker.ipc.messages import Generate, Prompt, TextPrompt, TokenPrompt
from tests.fakes.openai_requests import prompt_of, read, read_text, refusal, text_refusal, tool

# -- chats -------------------------------------------------------------------------------------------------


def test_bare_chat_goes_on_to_the_end_of_the_context() -> None:
    """A bare chat has no limit, no stop word, no tools and no form."""
    assert read().body == Generate(prompt=prompt_of())
    assert read().tools is False


def test_null_is_the_same_as_absent() -> None:
    """Clients that send every field as null get the defaults."""
    chat = [name for name in ChatRequest.__struct_fields__ if name not in {"model", "messages"}]
    text = [name for name in CompletionRequest.__struct_fields__ if name not in {"model", "prompt"}]

    assert read(**dict.fromkeys(chat)) == read()
    assert read_text(**dict.fromkeys(text)) == read_text()


MARK = {"cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "system", "content": "a", **MARK}]},
        {"messages": [{"role": "system", "content": [{"type": "text", "text": "a", **MARK}]}]},
        {"tools": [{**tool("f"), **MARK}]},
    ],
    ids=["message", "part", "tool"],
)
def test_mark_of_a_cache_is_a_hint(fields: dict[str, Any]) -> None:
    """Anthropic's mark, which clients of several servers send here too, says that the beginning comes again."""
    assert read(**fields).body.keep
    assert not read(tools=[tool("f")]).body.keep


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_limit_count(name: str) -> None:
    """The older and the newer name limit the answer."""
    assert read(**{name: 7}).body.max_tokens == 7


def test_two_different_limits_are_refused() -> None:
    """Where both names are given and differ, none is chosen in silence."""
    assert refusal(max_tokens=1, max_completion_tokens=2).fault.param == "max_tokens"


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({}, None),
        ({"logprobs": False, "top_logprobs": 0}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
    ],
    ids=str,
)
def test_log_probabilities_are_asked_for(fields: dict[str, Any], asked: int | None) -> None:
    """The chosen tokens' alone, or with so many of the likeliest."""
    assert read(**fields).body.logprobs == asked


def test_likeliest_tokens_need_log_probabilities() -> None:
    """`top_logprobs` alone is a mistake, as at OpenAI's."""
    assert refusal(top_logprobs=2).fault.param == "top_logprobs"


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ({}, {}),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        ({"reasoning_effort": "none"}, {"reasoning_effort": "none", "enable_thinking": False}),
        ({"chat_template_kwargs": {"enable_thinking": False, "x": [1]}}, {"enable_thinking": False, "x": [1]}),
        (
            {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}},
            {"reasoning_effort": "none", "enable_thinking": True},
        ),
    ],
    ids=str,
)
def test_template_hears_how_hard_to_think(fields: dict[str, Any], arguments: dict[str, Any]) -> None:
    """The effort, and vLLM's arguments, which have the last word, reach the template."""
    assert prompt_of(**fields).template_args == arguments


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_template_is_not_the_clients(name: str) -> None:
    """What says how a template is applied, such as another template, can't come in among its variables."""
    assert refusal(chat_template_kwargs={name: 1}).fault.param == f"chat_template_kwargs.{name}"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "alien", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "a", "mood": 1}]}, "messages[0].mood"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "messages[0].content[0].type"),
        ({"logprobs": 3}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"reasoning_effort": "heroic"}, "reasoning_effort"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs"),
        ({"metadata": []}, "metadata"),
    ],
    ids=str,
)
def test_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    """A field that is missing, unknown, of the wrong type or out of range is named by its path."""
    assert refusal(**fields).fault.param == param


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "a", "format": "wav"}),
        ("verbosity", "low"),
        ("web_search_options", {}),
        ("moderation", {"model": "m"}),
    ],
)
def test_what_is_not_built_is_refused_not_ignored(name: str, value: Any) -> None:
    """A field that would change the answer, and is not honoured, is a 400 that names it."""
    error = refusal(**{name: value})

    assert error.fault.param == name
    assert error.fault.code == "unsupported_parameter"


def test_neutral_values_are_accepted() -> None:
    """Clients that spell out the defaults of what is not built are served."""
    for name, values in NEUTRAL.items():
        assert all(read(**{name: value}) == read() for value in values)
    for name, values in COMPLETION_NEUTRAL.items():
        assert all(read_text(**{name: value}) == read_text() for value in values)


def test_harmless_fields_change_nothing() -> None:
    """Accounting, storage and hints for speed are accepted, and make no difference."""
    harmless = {
        "user": "u",
        "safety_identifier": "s",
        "metadata": {"a": "b"},
        "store": True,
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "prompt_cache_options": {"ttl": "1h"},
        "prediction": {"type": "content", "content": "x"},
    }

    assert set(harmless) == IGNORED
    assert read(**harmless) == read()
    assert read_text(user="u") == read_text()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"a"', b"\xff{}", b"[" * 100_000], ids=repr)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    """Bytes that are no JSON object are a 400, whatever they are."""
    with pytest.raises(ApiError) as caught:
        read_chat(body)

    assert caught.value.status == 400


def test_a_chat_that_may_call_tools_says_so() -> None:
    """Who writes the answer knows whether it may turn out to be calls only."""
    assert read(tools=[tool("f")]).tools
    assert not read(tools=[tool("f")], tool_choice="none").tools


# -- completions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("Once", [TextPrompt(text="Once")]),
        (["Once", "Twice"], [TextPrompt(text="Once"), TextPrompt(text="Twice")]),
        ([1, 2], [TokenPrompt(tokens=(1, 2))]),
        ([[1, 2], [3]], [TokenPrompt(tokens=(1, 2)), TokenPrompt(tokens=(3,))]),
    ],
    ids=str,
)
def test_prompt_has_four_forms(prompt: Any, prompts: list[Prompt]) -> None:
    """A text, token ids, and lists of them are one prompt or several."""
    assert [body.prompt for body in read_text(prompt=prompt).bodies] == prompts


def test_answers_to_one_prompt_stand_together() -> None:
    """With `n`, each prompt's answers come in a row, each with the seed of its place among them."""
    call = read_text(prompt=["a", "b"], n=2, seed=5)

    assert [body.prompt for body in call.bodies] == [TextPrompt(text=text) for text in "aabb"]
    assert [body.sampling.seed for body in call.bodies] == [5, 6, 5, 6]
    assert call.n == 2


def test_completion_is_short_unless_told_otherwise() -> None:
    """Its length has OpenAI's default."""
    assert read_text().bodies[0].max_tokens == 16
    assert read_text(max_tokens=100, logprobs=5, stop=["."]).bodies[0] == Generate(
        prompt=TextPrompt(text="Once"), max_tokens=100, logprobs=5, stop=(".",)
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [1, [2]]}, "prompt"),
        ({"prompt": [[1], []]}, "prompt[1]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": {}}, "prompt"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": ["a"] * 5, "n": 4}, "prompt"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"suffix": "x"}, "suffix"),
        ({"echo": True}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"messages": []}, "messages"),
    ],
    ids=str,
)
def test_impossible_completion_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """A prompt of no form, too many answers, and what is not built are named."""
    assert text_refusal(**fields).fault.param == param
