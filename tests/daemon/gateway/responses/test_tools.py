"""Functions alone and in namespaces."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.daemon.gateway.errors import ApiError
from stoker.daemon.gateway.responses.tools import must_call, read_tools
from stoker.daemon.gateway.responses.types import NamedTool
from stoker.ipc.messages import ToolConstraint

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, "parameters": SCHEMA, **more}


def namespace(name: str, *names: str) -> dict[str, Any]:
    return {"type": "namespace", "name": name, "description": "", "tools": [function(each) for each in names]}


def test_functions_of_a_namespace_are_known_by_both_names() -> None:
    """A template is shown the namespace as part of the name, and what was sent stays as it was."""
    tools = read_tools([function("look", description="Look."), namespace("sky", "look", "fly")])

    assert [tool["function"]["name"] for tool in tools.rendered] == ["look", "sky__look", "sky__fly"]
    assert tools.rendered[0] == {
        "type": "function",
        "function": {"name": "look", "description": "Look.", "parameters": SCHEMA},
    }
    assert tools.spaces == {"sky__look": ("sky", "look"), "sky__fly": ("sky", "fly")}
    assert [tool.name for tool in tools.given] == ["look", "sky"]


def test_call_may_be_demanded() -> None:
    """Of any function or of the one that is named; else the model chooses."""
    tools = read_tools([function("look")])

    assert must_call("required", tools) == ToolConstraint()
    assert must_call(NamedTool("function", "look"), tools) == ToolConstraint(name="look")
    assert must_call("auto", tools) is must_call(None, tools) is None


@pytest.mark.parametrize(
    ("tools", "param", "words"),
    [
        ([{"type": "web_search"}], "tools[0]", "`web_search`"),
        ([function("look"), function("look")], "tools[1].name", "another tool"),
        ([namespace("sky", "look"), function("sky__look")], "tools[1].name", "another tool"),
        ([namespace("sky", "")], "tools[0].tools[0].name", "length"),
        ([{**namespace("sky"), "tools": [{"type": "custom", "name": "x"}]}], "tools[0].tools[0].type", "custom"),
        ([function("look", mood=1)], "tools[0].mood", "not ignored"),
    ],
)
def test_tools_that_are_not_possible_are_named(tools: list[dict[str, Any]], param: str, words: str) -> None:
    """The refusal says which tool, and why."""
    with pytest.raises(ApiError, match=words) as caught:
        read_tools(tools)

    assert (caught.value.status, caught.value.fault.param) == (400, param)
