"""Tools, the choice among them, and the form of an answer."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.daemon.gateway.fields import MAX_DEPTH
from stoker.ipc.messages import JsonConstraint, ToolConstraint
from tests.fakes.openai_requests import prompt_of, read, refusal, tool

ADD = tool("add", description="Adds.", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
NOW = tool("now")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def named(name: str) -> dict[str, Any]:
    """The choice of one function."""
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    """The choice of some functions."""
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(name) for name in names]}}


def schema_format(**fields: Any) -> dict[str, Any]:
    """A response format with a schema."""
    return {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, **fields}}


# -- tools -------------------------------------------------------------------------------------------------


def test_tools_reach_the_template_in_one_form() -> None:
    """Whatever else clients say about a tool, the template sees name, description and parameters, in this order."""
    wordy = {
        "cache_control": {"type": "ephemeral"},
        "function": {
            "strict": True,
            "parameters": ADD["function"]["parameters"],
            "description": "Adds.",
            "name": "add",
        },
        "type": "function",
    }
    (plain,), (same,) = prompt_of(tools=[ADD]).tools, prompt_of(tools=[wordy]).tools

    assert plain == same == ADD
    assert list(same["function"]) == ["name", "description", "parameters"]


def test_function_without_parameters_takes_none() -> None:
    """Templates that look into the parameters find some, and a call that must be has none."""
    (given,) = prompt_of(tools=[NOW]).tools

    assert given == tool("now", parameters={"type": "object", "properties": {}, "additionalProperties": False})


@pytest.mark.parametrize(
    ("choice", "names", "constraint"),
    [
        (None, ["add", "now"], None),
        ("auto", ["add", "now"], None),
        ("none", [], None),
        ("required", ["add", "now"], ToolConstraint()),
        (named("now"), ["add", "now"], ToolConstraint(name="now")),
        (allowed("auto", "now"), ["now"], None),
        (allowed("required", "now"), ["now"], ToolConstraint()),
    ],
    ids=str,
)
def test_choice_says_what_may_be_called(choice: Any, names: list[str], constraint: ToolConstraint | None) -> None:
    """What must be called is a constraint; what must not be called is not shown to the model."""
    call = read(tools=[ADD, NOW], tool_choice=choice)
    shown = prompt_of(tools=[ADD, NOW], tool_choice=choice).tools

    assert [each["function"]["name"] for each in shown] == names
    assert call.body.constraint == constraint
    assert call.tools is bool(names)


@pytest.mark.parametrize(("given", "parallel"), [(None, True), (True, True), (False, False)])
def test_parallel_calls_may_be_forbidden(given: bool | None, parallel: bool) -> None:
    """Only `false` limits an answer to one call."""
    assert read(tools=[ADD], parallel_tool_calls=given).body.parallel_calls is parallel


@pytest.mark.parametrize(
    ("fields", "param", "way_out"),
    [
        ({"tool_choice": "required"}, "tool_choice", "send tools"),
        ({"tools": [ADD], "tool_choice": named("sub")}, "tool_choice.function.name", "`add`"),
        ({"tool_choice": named("sub")}, "tool_choice.function.name", "none"),
        ({"tools": [ADD], "tool_choice": "any"}, "tool_choice", "`required`"),
        ({"tools": [ADD], "tool_choice": {"type": "custom"}}, "tool_choice.type", "`allowed_tools`"),
        (
            {"tools": [ADD], "tool_choice": allowed("auto", "add", "sub")},
            "tool_choice.allowed_tools.tools[1].function.name",
            "`add`",
        ),
        ({"tools": [ADD], "tool_choice": allowed("auto")}, "tool_choice.allowed_tools.tools", ""),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "`function`"),
        ({"tools": [tool("")]}, "tools[0].function.name", ""),
        ({"tools": [tool("f", parameters=[])]}, "tools[0].function.parameters", ""),
        ({"tools": [tool("f", returns={})]}, "tools[0].function.returns", "leave it out"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "`json_schema`"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", ""),
        ({"response_format": schema_format(schema=1)}, "response_format.json_schema.schema", ""),
        ({"response_format": schema_format(schemas=1)}, "response_format.json_schema.schemas", "leave it out"),
        ({"functions": [{"name": "f"}]}, "functions", "send tools"),
        ({"function_call": {"name": "f"}}, "function_call", "send tool_choice"),
    ],
    ids=str,
)
def test_impossible_wish_is_refused_with_a_way_out(fields: dict[str, Any], param: str, way_out: str) -> None:
    """A tool, a choice or a form that can't be is named, and the refusal says what can."""
    error = refusal(**fields)

    assert error.fault.param == param
    assert way_out in error.fault.message


# -- the form of the answer --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "constraint"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonConstraint()),
        (schema_format(), JsonConstraint(schema=SCHEMA)),
        (schema_format(strict=False, description="d"), JsonConstraint(schema=SCHEMA)),
        (schema_format(schema=True), JsonConstraint(schema=True)),
    ],
    ids=str,
)
def test_form_is_a_constraint(given: dict[str, Any], constraint: JsonConstraint | None) -> None:
    """A schema is kept to, strict or not."""
    assert read(response_format=given).body.constraint == constraint


def test_form_stands_beside_tools() -> None:
    """With tools the answer is JSON or a call; just JSON if none may be called, just a call where one must be."""
    fields = {"tools": [ADD], "response_format": schema_format()}

    for choice in (None, "auto", allowed("auto", "add")):
        assert read(**fields, tool_choice=choice).body.constraint == JsonConstraint(schema=SCHEMA, or_call=True)
    assert read(**fields, tool_choice="none").body.constraint == JsonConstraint(schema=SCHEMA)
    assert read(**fields, tool_choice="required").body.constraint == ToolConstraint()


@pytest.mark.parametrize(
    ("wrap", "param"),
    [
        (lambda deep: {"tools": [tool("f", parameters={"a": deep})]}, "tools[0].function.parameters"),
        (lambda deep: {"response_format": schema_format(schema={"a": deep})}, "response_format.json_schema.schema"),
        (lambda deep: {"chat_template_kwargs": {"a": deep}}, "chat_template_kwargs"),
    ],
    ids=["tool", "schema", "template"],
)
def test_bottomless_value_is_refused(wrap: Any, param: str) -> None:
    """What could not be read any more inside a message to the worker is not sent there."""
    deep: list[Any] = []
    for _ in range(MAX_DEPTH):
        deep = [deep]

    error = refusal(**wrap(deep))
    assert error.fault.param == param
    assert "nested too deeply" in error.fault.message
