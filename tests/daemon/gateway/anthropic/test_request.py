"""From a Messages request's bytes to the worker's terms, and every refusal on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.daemon.gateway.anthropic.request import MessagesCall, read_count, read_messages
from stoker.daemon.gateway.anthropic.types import IGNORED, NEUTRAL, MessagesRequest
from stoker.daemon.gateway.errors import ApiError
from stoker.ipc.messages import ChatPrompt, JsonConstraint, ToolConstraint
from tests.fakes.anthropic_client import WEATHER, ask

MARK = {"cache_control": {"type": "ephemeral"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
JSON = {"type": "json_schema", "schema": SCHEMA}
USE = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}


def read(**fields: Any) -> MessagesCall:
    """A good request with these fields changed, read."""
    return read_messages(json.dumps(ask(**fields)).encode())


def prompt(**fields: Any) -> ChatPrompt:
    """Its prompt."""
    found = read(**fields).body.prompt
    assert isinstance(found, ChatPrompt)
    return found


def refusal(**fields: Any) -> ApiError:
    """The refusal of a request with these fields."""
    with pytest.raises(ApiError) as caught:
        read(**fields)
    assert caught.value.status == 400
    return caught.value


def user(content: Any) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": content}


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


# -- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [user(None)]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{**user("a"), "name": "b"}]}, "messages[0].name"),
        ({"messages": [user([{"type": "text"}])]}, "messages[0].content[0].text"),
        ({"messages": [user([{"text": "a"}])]}, "messages[0].content[0].type"),
        ({"messages": [user([{"type": "text", "text": "a", "mood": 1}])]}, "messages[0].content[0].mood"),
        ({"messages": [{"role": "assistant", "content": [{**USE, "input": "{}"}]}]}, "messages[0].content[0].input"),
        ({"model": None}, "model"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 2**40}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"system": 3}, "system"),
        ({"temperature": 1.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"stop_sequences": "a"}, "stop_sequences"),
        ({"stop_sequences": ["a", ""]}, "stop_sequences[1]"),
        ({"metadata": []}, "metadata"),
        ({"thinking": {"type": "often"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "mood": 1}}, "thinking.mood"),
        ({"output_config": {"format": {"type": "json_object"}}}, "output_config.format.type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{"name": "", "input_schema": {}}]}, "tools[0].name"),
        ({"tools": [WEATHER, {**WEATHER, "mood": 1}]}, "tools[1].mood"),
        ({"tools": [{**WEATHER, "type": 3}]}, "tools[0].type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "must"}}, "tool_choice.type"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "f"}}, "tool_choice.name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"horoscope": 1}, "horoscope"),
    ],
    ids=str,
)
def test_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    """A field that is missing, unknown, of the wrong type or out of range is named by its path, in the text too."""
    error = refusal(**fields)

    assert error.fault.param == param
    assert param in error.fault.message


def nested(levels: int) -> Any:
    """An object so many levels deep."""
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{**WEATHER, "input_schema": nested(200)}]}, "tools[0]"),
        ({"output_config": {"format": {**JSON, "schema": nested(200)}}}, "output_config.format.schema"),
        (
            {"messages": [user("a"), {"role": "assistant", "content": [{**USE, "input": nested(200)}]}]},
            "messages[1].content[0].input",
        ),
    ],
    ids=["tool", "format", "input"],
)
def test_what_is_nested_too_deeply_is_refused(fields: dict[str, Any], param: str) -> None:
    """Values that go to the worker as they are have a depth that every decoder on the way can take."""
    assert refusal(**fields).fault.param == param


@pytest.mark.parametrize("place", ["messages[0].content[1]", "messages[0].content[0].content[1]", "system[1]"])
@pytest.mark.parametrize("kind", ["image", "document", "search_result", "server_tool_use"])
def test_other_content_than_text_is_refused_by_name(kind: str, place: str) -> None:
    """Images and the like are refused wherever they stand, and no URL in them is looked at."""
    text = {"type": "text", "text": "a"}
    blocks = [text, {"type": kind, "source": {"type": "url", "url": "http://127.0.0.1:1/x.png"}}]
    inner = [{"type": "tool_result", "tool_use_id": "t", "content": blocks}]
    content = {"messages[0].content[1]": blocks, "messages[0].content[0].content[1]": inner}.get(place, "Hi")
    error = refusal(messages=[user(content)], **({"system": blocks} if place == "system[1]" else {}))

    assert error.fault.param == place
    assert f"`{kind}`" in error.fault.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mcp_servers", [{"type": "url", "url": "http://127.0.0.1:1", "name": "x"}]),
        ("container", "container_1"),
        ("compaction", {"type": "compact"}),
        ("thread", {"id": "t"}),
    ],
)
def test_what_is_not_built_is_refused_not_ignored(name: str, value: Any) -> None:
    """A field that would change the answer, and is not honoured, is a 400 that names it."""
    error = refusal(**{name: value})

    assert name in NEUTRAL
    assert (error.fault.param, error.fault.code) == (name, "unsupported_parameter")


def test_neutral_values_are_accepted() -> None:
    """Clients that spell out that they want nothing of it are served."""
    assert [read(**{name: value}) for name, values in NEUTRAL.items() for value in values] == [read()]


def test_edits_of_thinking_are_the_templates() -> None:
    """The edit that agents send with each request is accepted; one that would shorten the conversation is not."""
    keep_all = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    clear = {"edits": [{"type": "clear_tool_uses_20250919", "trigger": {"type": "input_tokens", "value": 100}}]}

    assert read(context_management=keep_all) == read(context_management={"edits": []}) == read()
    assert "clear_tool_uses_20250919" in refusal(context_management=clear).fault.message


def test_what_a_coding_agent_sends_is_understood() -> None:
    """All that Claude Code 2.1 puts into each request is read: accounting, marks, betas, a system message inside."""
    text = {"type": "text", "text": "a"}
    header = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.197.c40; cc_entrypoint=sdk-cli;"}
    call = read(
        system=[header, {**text, **MARK}, {**text, **MARK}],
        tools=[WEATHER],
        messages=[
            user([text, {**text, **MARK}]),
            {"role": "system", "content": "Available agents: none."},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "stoker"},
                    {**text, "citations": None},
                    USE,
                ],
            },
            user([{"type": "tool_result", "tool_use_id": "toolu_1", "content": "b", "is_error": False, **MARK}]),
        ],
        metadata={"user_id": "{}"},
        max_tokens=32000,
        thinking={"type": "adaptive"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        output_config={"effort": "high"},
        stream=True,
    )
    assert isinstance(call.body.prompt, ChatPrompt)

    assert [message["role"] for message in call.body.prompt.messages] == ["system", "user", "assistant", "tool"]
    assert call.body.prompt.template_args == {"enable_thinking": True, "reasoning_effort": "high"}
    assert (call.stream, call.body.keep, call.body.max_tokens) == (True, True, 32000)


def test_harmless_fields_change_nothing() -> None:
    """Accounting, places and fallbacks are accepted, and make no difference."""
    harmless = {
        "speed": "fast",
        "user_profile_id": "u",
        "workspace_id": "w",
        "metadata": {"user_id": "u"},
        "service_tier": "auto",
        "inference_geo": "eu",
        "diagnostics": {"previous_message_id": None},
        "billing_policy": {},
        "fallback_credit_token": "t",
        "fallbacks": "default",
    }

    assert set(harmless) == IGNORED
    assert read(**harmless) == read()


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
