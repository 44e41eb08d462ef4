"""The functions that a Responses request offers, alone or in namespaces, and how the model knows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....ipc.messages import ToolConstraint
from ..fields import converted, not_built, require_shallow, wrong_value
from ..openai.tools import NO_PARAMETERS
from .types import FunctionTool, NamedTool, NamespaceTool, ShownTool


@dataclass(frozen=True, slots=True)
class Tools:
    """What may be called.

    Attributes:
        given: As the client sent it.
        rendered: As templates know it.
        spaces: The namespace and the name in it of functions that are in one, by the name that the model knows.
    """

    given: tuple[ShownTool, ...]
    rendered: tuple[dict[str, Any], ...]
    spaces: Mapping[str, tuple[str, str]]


def full_name(namespace: str | None, name: str) -> str:
    """How the model knows a function: templates have no namespaces."""
    return name if namespace is None else f"{namespace}__{name}"


def read_tools(given: Sequence[dict[str, Any]]) -> Tools:
    """Understand a request's tools.

    Raises:
        ApiError: 400, naming the one that is not possible.
    """
    tools = [_read(tool, f"tools[{index}]") for index, tool in enumerate(given)]
    rendered: dict[str, dict[str, Any]] = {}
    spaces: dict[str, tuple[str, str]] = {}
    for path, space, function in _functions(tools):
        require_shallow(function.parameters, f"{path}.parameters")
        name = full_name(space, function.name)
        if name in rendered:
            raise wrong_value(f"{path}.name", f"is `{function.name}`, which another tool is called too")
        rendered[name] = _rendered(name, function)
        if space is not None:
            spaces[name] = (space, function.name)
    return Tools(tuple(tools), tuple(rendered.values()), spaces)


def _read(tool: dict[str, Any], path: str) -> ShownTool:
    match kind := tool.get("type", "function"):
        case "function":
            return converted(tool, FunctionTool, path)
        case "namespace":
            return converted(tool, NamespaceTool, path)
    raise not_built(
        path, f"this server has no tools of its own, such as type `{kind}`; leave it out, or send a `function`"
    )


def _functions(tools: Sequence[ShownTool]) -> Iterator[tuple[str, str | None, FunctionTool]]:
    for index, tool in enumerate(tools):
        if isinstance(tool, FunctionTool):
            yield f"tools[{index}]", None, tool
        else:
            for place, function in enumerate(tool.tools):
                yield f"tools[{index}].tools[{place}]", tool.name, function


def _rendered(name: str, tool: FunctionTool) -> dict[str, Any]:
    """In the form of the chat API, which templates are written for."""
    description = {} if tool.description is None else {"description": tool.description}
    function = {"name": name, **description, "parameters": tool.parameters or NO_PARAMETERS}
    return {"type": "function", "function": function}


def must_call(choice: str | NamedTool | None, tools: Tools) -> ToolConstraint | None:
    """Whether a function must be called; None if the model may choose.

    Raises:
        ApiError: 400; it is not among the tools.
    """
    if choice != "required" and not isinstance(choice, NamedTool):
        return None
    if not tools.rendered:
        raise wrong_value("tool_choice", "demands a call, but there are no tools: send tools, or leave it out")
    if not isinstance(choice, NamedTool):
        return ToolConstraint()
    names = [tool["function"]["name"] for tool in tools.rendered]
    if choice.name not in names:
        there = ", ".join(f"`{name}`" for name in names)
        raise wrong_value("tool_choice.name", f"is `{choice.name}`, which is not among the tools: {there}")
    return ToolConstraint(name=choice.name)
