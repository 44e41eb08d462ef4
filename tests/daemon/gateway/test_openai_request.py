"""From a request's bytes to the worker's terms, and every refusal on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stoker.daemon.gateway.errors import ApiError
from stoker.daemon.gateway.openai_request import ChatCall, read_chat
from stoker.daemon.gateway.openai_types import IGNORED, NEUTRAL, ChatRequest
from stoker.ipc.messages import ChatPrompt
from tests.fakes.http import chat

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def read(**fields: Any) -> ChatCall:
    """A good request with these fields changed, read."""
    return read_chat(json.dumps(chat(**fields)).encode())


def messages(*given: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """What the template gets for these messages."""
    prompt = read(messages=given).body.prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt.messages


def refusal(**fields: Any) -> ApiError:
    """The refusal of a request with these fields."""
    with pytest.raises(ApiError) as caught:
        read(**fields)
    assert caught.value.status == 400
    return caught.value


def test_bare_request_is_greedy() -> None:
    """A bare request is greedy, up to the end of the context, and answered whole."""
    call = read()

    assert (call.body.sampling.temperature, call.body.sampling.top_p, call.body.sampling.seed) == (0.0, 1.0, None)
    assert (call.body.max_tokens, call.body.stop) == (None, ())
    assert (call.stream, call.include_usage) == (False, False)


def test_null_is_the_same_as_absent() -> None:
    """Clients that send every field as null get the defaults."""
    optional = [name for name in ChatRequest.__struct_fields__ if name not in {"model", "messages"}]

    assert read(**dict.fromkeys(optional)) == read()


def test_system_and_developer_are_one_role() -> None:
    """Templates know `system` only."""
    roles = [
        each["role"] for each in messages({"role": "system", "content": "a"}, {"role": "developer", "content": "b"})
    ]

    assert roles == ["system", "system"]


def test_text_parts_are_joined() -> None:
    """A list of text parts means their text, hints for other servers' caches left aside."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}]

    assert messages({"role": "user", "content": parts}) == ({"role": "user", "content": "ab"},)


def test_tool_conversation_reaches_the_template() -> None:
    """Calls come with their arguments as an object, results with the call's id."""
    rendered = messages(
        {"role": "user", "content": "1+?", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    )

    assert rendered == (
        {"role": "user", "content": "1+?", "name": "ann"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    )


def test_own_answer_may_be_sent_back() -> None:
    """A message as SDKs keep it, with its null members, is accepted as history."""
    kept: dict[str, Any] = {
        "role": "assistant",
        "content": "Hi",
        "refusal": None,
        "audio": None,
        "function_call": None,
        "tool_calls": None,
        "annotations": [],
    }

    assert messages(kept) == ({"role": "assistant", "content": "Hi"},)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_limit_count(name: str) -> None:
    """The older and the newer name limit the answer."""
    assert read(**{name: 7}).body.max_tokens == 7


def test_two_different_limits_are_refused() -> None:
    """Where both names are given and differ, none is chosen in silence."""
    assert refusal(max_tokens=1, max_completion_tokens=2).fault.param == "max_tokens"


@pytest.mark.parametrize(("stop", "words"), [("a", ("a",)), (["a", "b"], ("a", "b")), ([], ())])
def test_stop_is_a_word_or_a_list(stop: Any, words: tuple[str, ...]) -> None:
    """Both forms of `stop` mean a list of words."""
    assert read(stop=stop).body.stop == words


def test_top_p_zero_is_greedy() -> None:
    """No mass at all leaves the likeliest token, not every token."""
    assert read(top_p=0, temperature=2).body.sampling.temperature == 0


def test_negative_seed_is_a_seed() -> None:
    """Seeds of OpenAI's whole range give the worker a number that it can take, each its own."""
    seeds = [read(seed=seed).body.sampling.seed for seed in (-1, -2, 0, 5)]

    assert all(seed is not None and 0 <= seed < 1 << 63 for seed in seeds)
    assert len(set(seeds)) == 4


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
        ({"model": 1}, "model"),
        ({"model": None}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"usage": True}}, "stream_options.usage"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"seed": "x"}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"metadata": []}, "metadata"),
        ({"n": True}, "n"),
        ({"horoscope": 1}, "horoscope"),
    ],
    ids=str,
)
def test_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    """A field that is missing, unknown, of the wrong type or out of range is named by its path."""
    assert refusal(**fields).fault.param == param


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_other_content_than_text_is_refused_by_name(kind: str) -> None:
    """Images and the like are refused, and no URL in them is looked at."""
    part = {"type": kind, kind: {"url": "http://127.0.0.1:1/x.png"}}
    error = refusal(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, part]}])

    assert error.fault.param == "messages[0].content[1]"
    assert kind in error.fault.message


def test_unreadable_tool_arguments_are_refused() -> None:
    """A call in the history whose arguments are no JSON object is named, not passed on."""
    call = {**CALL, "function": {"name": "add", "arguments": "[1]"}}
    error = refusal(messages=[{"role": "assistant", "tool_calls": [call]}])

    assert error.fault.param == "messages[0].tool_calls[0].function.arguments"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
        ("response_format", {"type": "json_object"}),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"5": 1}),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -0.5),
        ("repetition_penalty", 1.1),
        ("top_k", 40),
        ("min_p", 0.1),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "a", "format": "wav"}),
        ("reasoning_effort", "high"),
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
        for value in values:
            assert read(**{name: value}) == read()


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
        "parallel_tool_calls": False,
    }

    assert set(harmless) == IGNORED
    assert read(**harmless) == read()
