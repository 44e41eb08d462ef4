"""From a Messages request's bytes to the worker's terms, and every refusal on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.daemon.gateway.anthropic.request import read_count, read_messages
from stoker.daemon.gateway.anthropic.types import MessagesRequest
from stoker.daemon.gateway.errors import ApiError
from stoker.ipc.messages import JsonConstraint, ToolConstraint
from tests.fakes.anthropic_client import WEATHER, ask
from tests.fakes.anthropic_requests import JSON, MARK, SCHEMA, USE, prompt, read, refusal, user


def test_bare_request_is_greedy() -> None:
    """A bare request is greedy, doesn't think, is answered whole, and asks for nothing to be kept."""
    call = read()

    assert (call.model, call.stream, call.show_thinking) == ("default", False, True)
    assert (call.body.max_tokens, call.body.stop, call.body.keep) == (50, (), False)
    assert call.body.sampling.temperature == 0.0
    assert (call.body.constraint, call.body.parallel_calls) == (None, True)
    assert prompt().template_args == {"enable_thinking": False}


def test_null_is_the_same_as_absent() -> None:
    """Clients that send every field as null get the defaults."""
    optional = set(MessagesRequest.__struct_fields__) - {"model", "messages", "max_tokens"}

    assert read(**dict.fromkeys(optional)) == read()


def test_sampling_is_as_asked() -> None:
    """What a client says about sampling reaches the worker; no mass at all leaves the likeliest token."""
    asked = read(temperature=0.7, top_p=0.9, top_k=40, stop_sequences=["END", "\n"]).body

    assert (asked.sampling.temperature, asked.sampling.top_p, asked.sampling.top_k) == (0.7, 0.9, 40)
    assert asked.stop == ("END", "\n")
    assert read(temperature=1, top_p=0).body.sampling.temperature == 0.0


# -- thinking and the form of the answer -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thinking", "thinks"),
    [
        ({"type": "enabled", "budget_tokens": 2048}, True),
        ({"type": "adaptive"}, True),
        ({"type": "between_tools"}, True),
        ({"type": "disabled"}, False),
        (None, False),
    ],
)
def test_thinking_is_a_switch_of_the_template(thinking: Any, thinks: bool) -> None:
    """A model thinks if it was asked to, by whichever word."""
    assert prompt(thinking=thinking).template_args == {"enable_thinking": thinks}


def test_thinking_may_be_hidden() -> None:
    """A client that wants the thinking omitted says so in `display`."""
    assert read(thinking={"type": "adaptive", "display": "omitted"}).show_thinking is False
    assert read(thinking={"type": "adaptive", "display": "summarized"}).show_thinking is True


def test_effort_is_for_the_template() -> None:
    """Templates with levels of reasoning get the level."""
    assert prompt(output_config={"effort": "high"}).template_args["reasoning_effort"] == "high"


@pytest.mark.parametrize("fields", [{"output_config": {"format": JSON}}, {"output_format": JSON}])
def test_format_constrains_the_answer(fields: dict[str, Any]) -> None:
    """A JSON Schema is kept to, under the newer name of the field and the older."""
    assert read(**fields).body.constraint == JsonConstraint(schema=SCHEMA)


# -- tools -------------------------------------------------------------------------------------------------


def test_tools_are_in_the_form_of_templates() -> None:
    """A tool becomes a function with its schema as parameters, and without its cache mark."""
    (tool,) = prompt(
        tools=[{**WEATHER, **MARK, "type": "custom", "strict": True, "eager_input_streaming": True}]
    ).tools

    assert tool == {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Tell the weather.",
            "parameters": WEATHER["input_schema"],
        },
    }


def test_tool_needs_no_description() -> None:
    """A tool without a description has none, rather than an empty one."""
    (tool,) = prompt(tools=[{"name": "f", "input_schema": {}}]).tools

    assert tool["function"] == {"name": "f", "parameters": {}}


def test_examples_are_shown_to_the_model() -> None:
    """Examples of a tool's input stand in its description, where any template shows them."""
    (tool,) = prompt(tools=[{**WEATHER, "input_examples": [{"city": "Rome"}]}]).tools

    assert tool["function"]["description"] == 'Tell the weather.\nExamples of input:\n{"city":"Rome"}'


@pytest.mark.parametrize(
    ("choice", "constraint", "parallel"),
    [
        ({"type": "auto"}, None, True),
        ({"type": "auto", "disable_parallel_tool_use": True}, None, False),
        ({"type": "any"}, ToolConstraint(), True),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolConstraint(), False),
        ({"type": "tool", "name": "get_weather"}, ToolConstraint(name="get_weather"), True),
        ({"type": "none"}, None, True),
    ],
)
def test_tool_choice_is_honoured(choice: dict[str, Any], constraint: Any, parallel: bool) -> None:
    """Each choice is a constraint of the worker's, or none."""
    body = read(tools=[WEATHER], tool_choice=choice).body

    assert body.constraint == constraint
    assert body.parallel_calls is parallel


def test_choice_of_none_leaves_the_tools_out() -> None:
    """A model that is not to call anything doesn't see what it could call."""
    assert prompt(tools=[WEATHER], tool_choice={"type": "none"}).tools == ()


def test_form_beside_tools() -> None:
    """The answer is of the form, or calls tools, unless none may be called."""
    form = {"tools": [WEATHER], "output_config": {"format": JSON}}

    assert read(**form).body.constraint == JsonConstraint(schema=SCHEMA, or_call=True)
    assert read(**form, tool_choice={"type": "auto"}).body.constraint == JsonConstraint(schema=SCHEMA, or_call=True)
    assert read(**form, tool_choice={"type": "none"}).body.constraint == JsonConstraint(schema=SCHEMA)


def test_call_wins_over_the_form() -> None:
    """Where a call is demanded, the form of a text says nothing."""
    body = read(tools=[WEATHER], tool_choice={"type": "any"}, output_config={"format": JSON}).body

    assert body.constraint == ToolConstraint()


@pytest.mark.parametrize("kind", ["web_search_20250305", "bash_20250124", "computer_20250124"])
def test_tools_of_the_server_are_refused_by_name(kind: str) -> None:
    """A tool that the server would have to know or run is refused, whatever other fields it has."""
    error = refusal(tools=[WEATHER, {"type": kind, "name": "x", "max_uses": 3}])

    assert error.fault.param == "tools[1]"
    assert kind in error.fault.message


# -- what is worth keeping ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        MARK,
        {"system": [{"type": "text", "text": "a", **MARK}]},
        {"tools": [{**WEATHER, **MARK}]},
        {"messages": [user([{"type": "text", "text": "a", **MARK}])]},
        {"messages": [user("a"), {"role": "assistant", "content": [{**USE, **MARK}]}, user("b")]},
        {"messages": [user([{"type": "tool_result", "tool_use_id": "t", **MARK}])]},
        {
            "messages": [
                user(
                    [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "a", **MARK}]}]
                )
            ]
        },
    ],
    ids=["top", "system", "tools", "text", "use", "result", "in a result"],
)
def test_cache_control_asks_to_keep(fields: dict[str, Any]) -> None:
    """A cache mark, wherever it stands, tells the worker that the conversation will come again."""
    assert read(**fields).body.keep is True


def test_no_tokens_asks_only_to_keep() -> None:
    """A request for no tokens at all is Anthropic's way to warm a prompt: the worker's least answer, and kept."""
    call = read(max_tokens=0)

    assert call.only_warm is True
    assert (call.body.max_tokens, call.body.keep) == (1, True)
    assert read(max_tokens=1).only_warm is False


def test_words_about_the_mark_are_none() -> None:
    """A text or a schema that mentions `cache_control` is no mark."""
    tool = {"name": "f", "input_schema": {"properties": {"cache_control": {"type": "object"}}}}

    assert read(messages=[user('"cache_control"')], tools=[tool]).body.keep is False


# -- counting ----------------------------------------------------------------------------------------------


def test_count_is_of_the_same_prompt() -> None:
    """What is counted is what would be answered: system, tools, thinking and all."""
    fields: dict[str, Any] = {
        "system": "Be brief.",
        "tools": [WEATHER],
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "messages": [user("a"), user("b")],
    }
    counted = read_count(json.dumps({"model": "default", **fields}).encode())

    assert counted.model == "default"
    assert counted.body.prompt == prompt(**fields)


def test_count_takes_no_fields_of_an_answer() -> None:
    """A count has no length, and says so."""
    with pytest.raises(ApiError) as caught:
        read_count(json.dumps(ask()).encode())

    assert caught.value.fault.param == "max_tokens"


# -- anything at all ---------------------------------------------------------------------------------------

scalars = st.one_of(st.none(), st.booleans(), st.integers(-5, 2**70), st.floats(allow_nan=False), st.text(max_size=3))
words = st.sampled_from(
    ["type", "text", "content", "name", "id", "input", "tool_use_id", "thinking", "input_schema", "cache_control"]
)
kinds = st.sampled_from(["text", "tool_use", "tool_result", "thinking", "image", "custom", "auto", "tool", "enabled"])
anything = st.recursive(
    st.one_of(scalars, kinds),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=4)),
    max_leaves=8,
)
nearly_messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": anything}),
    max_size=3,
)
fields_of_requests = st.dictionaries(
    st.sampled_from([*MessagesRequest.__struct_fields__, "horoscope"]), anything, max_size=3
)


def status_of(body: dict[str, Any]) -> int:
    """What a request would be answered with, as far as reading it goes."""
    try:
        read_messages(json.dumps(body).encode())
    except ApiError as error:
        return error.status if error.fault.message else 0
    return 200


@given(fields_of_requests, nearly_messages)
def test_any_json_is_understood_or_refused(fields: dict[str, Any], messages: list[Any]) -> None:
    """Whatever JSON comes, it is a request or a 400 that says why."""
    assert {status_of(ask(**fields)), status_of(ask(messages=messages))} <= {200, 400}
