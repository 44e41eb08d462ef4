"""A Responses request in the worker's terms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stoker.daemon.gateway.errors import ApiError
from stoker.daemon.gateway.responses.request import ResponsesCall, read_responses
from stoker.ipc.messages import ChatPrompt, JsonConstraint, Sampling, ToolConstraint

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
LOOK = {"type": "function", "name": "look", "description": "Look.", "parameters": SCHEMA, "strict": True}


def read(**fields: Any) -> ResponsesCall:
    return read_responses(json.dumps({"model": "m", "input": "Hi", **fields}).encode())


def prompt(**fields: Any) -> ChatPrompt:
    given = read(**fields).body.prompt
    assert isinstance(given, ChatPrompt)
    return given


def test_plain_request_asks_for_nothing_special() -> None:
    """Greedy, unbounded, unconstrained and whole, unless asked otherwise."""
    call = read()

    assert (call.model, call.stream) == ("m", False)
    assert call.body.sampling == Sampling()
    assert (call.body.max_tokens, call.body.constraint, call.body.logprobs) == (None, None, None)
    assert call.body.parallel_calls
    assert prompt() == ChatPrompt(messages=({"role": "user", "content": "Hi"},))


def test_sampling_and_length_are_passed_on() -> None:
    """Temperature, nucleus and bound reach the worker; a nucleus of nothing is greedy."""
    body = read(temperature=0.7, top_p=0.9, max_output_tokens=5, parallel_tool_calls=False, stream=True).body

    assert body.sampling == Sampling(temperature=0.7, top_p=0.9)
    assert (body.max_tokens, body.parallel_calls) == (5, False)
    assert read(temperature=1, top_p=0).body.sampling == Sampling()


def test_tools_take_the_form_of_templates() -> None:
    """A function tool reaches the template as the chat API would give it, so that both share their prefixes."""
    function = {"name": "look", "description": "Look.", "parameters": SCHEMA}

    assert prompt(tools=[LOOK]).tools == ({"type": "function", "function": function},)


@pytest.mark.parametrize(
    ("choice", "constraint"),
    [
        ("auto", None),
        ("required", ToolConstraint()),
        ({"type": "function", "name": "look"}, ToolConstraint(name="look")),
    ],
)
def test_choice_of_tools(choice: Any, constraint: ToolConstraint | None) -> None:
    """A call is forced where it is asked for, of any tool or of the named one."""
    assert read(tools=[LOOK], tool_choice=choice).body.constraint == constraint


def test_no_tools_are_shown_where_none_may_be_called() -> None:
    """With `none` the model doesn't hear of the tools, so that it can't call one."""
    assert prompt(tools=[LOOK], tool_choice="none").tools == ()


@pytest.mark.parametrize(
    ("form", "constraint"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonConstraint()),
        ({"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}, JsonConstraint(schema=SCHEMA)),
    ],
)
def test_form_of_the_text(form: dict[str, Any], constraint: JsonConstraint | None) -> None:
    """JSON that was asked for is enforced, by its schema where there is one."""
    assert read(text={"format": form}).body.constraint == constraint


def test_form_beside_tools() -> None:
    """The answer is of the form, or calls; with `none` it doesn't call, with `required` it only calls."""
    form = {"format": {"type": "json_object"}}

    assert read(text=form, tools=[LOOK]).body.constraint == JsonConstraint(or_call=True)
    assert read(text=form, tools=[LOOK], tool_choice="none").body.constraint == JsonConstraint()
    assert read(text=form, tools=[LOOK], tool_choice="required").body.constraint == ToolConstraint()


def test_what_is_nested_too_deeply_is_refused() -> None:
    """Schemas that would break a decoder on their way to the worker are refused by name."""
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"properties": {"a": deep}}
    for fields, param in (
        ({"tools": [{**LOOK, "parameters": deep}]}, "tools[0].parameters"),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": deep}}}, "text.format.schema"),
    ):
        with pytest.raises(ApiError, match="nested too deeply") as caught:
            read(**fields)
        assert caught.value.fault.param == param


def test_effort_reaches_the_template() -> None:
    """The template gets the level, and for `none` also the switch that other templates have."""
    assert prompt(reasoning={"effort": "high", "summary": "auto"}).template_args == {"reasoning_effort": "high"}
    assert prompt(reasoning={"effort": "none"}).template_args == {
        "reasoning_effort": "none",
        "enable_thinking": False,
    }


def test_logprobs_are_asked_for_in_two_ways() -> None:
    """By `include`, or by a number of likeliest tokens."""
    assert read(include=["message.output_text.logprobs"]).body.logprobs == 0
    assert read(include=["message.output_text.logprobs"], top_logprobs=3).body.logprobs == 3
    assert read(top_logprobs=2).body.logprobs == 2
    assert read(include=["reasoning.encrypted_content"], top_logprobs=0).body.logprobs is None


def test_harmless_fields_are_accepted() -> None:
    """What can't change the answer is taken, null or not."""
    read(
        user="u",
        safety_identifier="s",
        metadata={"a": "b"},
        store=True,
        service_tier="auto",
        prompt_cache_key="k",
        prompt_cache_retention="24h",
        max_tool_calls=3,
        truncation="disabled",
        background=False,
        previous_response_id=None,
        text={"verbosity": "medium"},
        stream_options={"include_obfuscation": False},
    )


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "send the whole conversation"),
        ({"conversation": "conv_1"}, "conversation", "send the whole conversation"),
        ({"background": True}, "background", "false or null"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "leave it out"),
        ({"truncation": "auto"}, "truncation", '"disabled" or null'),
        ({"context_management": [{}]}, "context_management", "not supported"),
        ({"seed": 1}, "seed", "not ignored"),
        ({"input": []}, "input", "length"),
        ({"input": 1}, "input", "Expected"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "low"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "xml"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "type `web_search`"),
        ({"tools": [LOOK, {"type": "function"}]}, "tools[1].name", "required"),
        ({"tool_choice": "required"}, "tool_choice", "no tools"),
        ({"tools": [LOOK], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name", "`look`"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice.type", "web_search"),
        ({"include": ["everything"]}, "include[0]", "everything"),
        ({"top_logprobs": 21}, "top_logprobs", "20"),
        ({"max_output_tokens": 0}, "max_output_tokens", "1"),
    ],
)
def test_what_is_not_built_is_refused_by_name(fields: dict[str, Any], param: str, words: str) -> None:
    """A field that would change the answer in a way that is not built is named, with the way out."""
    with pytest.raises(ApiError, match=words) as caught:
        read(**fields)

    assert (caught.value.status, caught.value.fault.param) == (400, param)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"model": "m"}', b'{"input": "Hi"}', b"\xff"])
def test_malformed_bodies_are_refused(data: bytes) -> None:
    """What is no JSON object, or lacks the model or the input, is a 400."""
    with pytest.raises(ApiError) as caught:
        read_responses(data)

    assert caught.value.status == 400


def test_request_is_echoed_with_defaults() -> None:
    """The answer will show what was asked, with what was left out filled in."""
    shown = read(instructions="Be brief.", metadata={"a": "b"}, tools=[LOOK]).shown

    assert (shown["instructions"], shown["metadata"], shown["tool_choice"]) == ("Be brief.", {"a": "b"}, "auto")
    assert (shown["temperature"], shown["top_p"], shown["tools"][0].name) == (0.0, 1.0, "look")
