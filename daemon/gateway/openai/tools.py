"""Tools, the choice among them, and the form of an answer: as clients say it, and as the worker is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from ....ipc.messages import JsonConstraint, ToolConstraint
from ..fields import require_shallow, wrong_value

Name: TypeAlias = Annotated[str, Meta(min_length=1)]


class Function(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function that the model may call. `strict` is accepted; the model's arguments are what it wrote."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="function"):
    """A tool; only functions are possible."""

    function: Function
    cache_control: dict[str, Any] | None = None
    """A hint of other APIs that some clients send here too: more requests will begin with these tools."""


class ToolName(msgspec.Struct, frozen=True):
    """A function's name."""

    name: str


class NamedTool(msgspec.Struct, frozen=True, tag_field="type", tag="function", forbid_unknown_fields=True):
    """This function is to be called."""

    function: ToolName


class AllowedTool(msgspec.Struct, frozen=True, tag_field="type", tag="function"):
    """One of the functions that may be called."""

    function: ToolName


class AllowedTools(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Some of the tools, one of which may or must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[tuple[AllowedTool, ...], Meta(min_length=1)]


class AllowedChoice(msgspec.Struct, frozen=True, tag_field="type", tag="allowed_tools", forbid_unknown_fields=True):
    """Only some of the tools count."""

    allowed_tools: AllowedTools


ToolChoice: TypeAlias = Literal["none", "auto", "required"] | NamedTool | AllowedChoice


class Schema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A JSON Schema with a name. The answer keeps to it, `strict` or not."""

    name: str
    schema: dict[str, Any] | bool
    description: str | None = None
    strict: bool | None = None


class TextFormat(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """Any text."""


class ObjectFormat(msgspec.Struct, frozen=True, tag_field="type", tag="json_object"):
    """Any JSON object."""


class SchemaFormat(msgspec.Struct, frozen=True, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    """JSON that fits a schema."""

    json_schema: Schema


ResponseFormat: TypeAlias = TextFormat | ObjectFormat | SchemaFormat

NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}
"""What a function without `parameters` takes: nothing. Templates look into them."""

CHOICES = {
    "tools[].type": "`function`",
    "tool_choice": "`none`, `auto`, `required`, or the object that names a function",
    "tool_choice.type": "`function` or `allowed_tools`",
    "tool_choice.allowed_tools.mode": "`auto` or `required`",
    "response_format.type": "`text`, `json_object` or `json_schema`",
}


def chosen(
    tools: Sequence[Tool], choice: ToolChoice | None
) -> tuple[tuple[dict[str, Any], ...], ToolConstraint | None]:
    """The tools that the template is to show, and whether one must be called.

    Raises:
        ApiError: 400; the choice is not among the tools.
    """
    match choice:
        case "none":
            return (), None
        case NamedTool(function=wanted):
            _find(tools, wanted.name, "tool_choice.function.name")
            return _rendered(tools), ToolConstraint(name=wanted.name)
        case AllowedChoice(allowed_tools=allowed):
            path = "tool_choice.allowed_tools.tools[{}].function.name"
            names = [each.function.name for each in allowed.tools]
            some = [_find(tools, name, path.format(index)) for index, name in enumerate(names)]
            return _rendered(some), ToolConstraint() if allowed.mode == "required" else None
    if choice == "required" and not tools:
        raise wrong_value("tool_choice", "is `required`, but there are no tools: send tools, or leave it out")
    return _rendered(tools), ToolConstraint() if choice == "required" else None


def json_constraint(response_format: ResponseFormat | None, *, or_call: bool) -> JsonConstraint | None:
    """What the answer's text must be.

    Args:
        response_format: As asked for.
        or_call: Calls of tools will do as well.

    Raises:
        ApiError: 400, if the schema is nested too deeply.
    """
    match response_format:
        case ObjectFormat():
            return JsonConstraint(or_call=or_call)
        case SchemaFormat(json_schema=given):
            require_shallow(given.schema, "response_format.json_schema.schema")
            return JsonConstraint(schema=given.schema, or_call=or_call)
    return None


def _find(tools: Sequence[Tool], name: str, path: str) -> Tool:
    for tool in tools:
        if tool.function.name == name:
            return tool
    there = ", ".join(f"`{tool.function.name}`" for tool in tools) or "none"
    raise wrong_value(path, f"is `{name}`, which is not among the tools: {there}")


def _rendered(tools: Sequence[Tool]) -> tuple[dict[str, Any], ...]:
    """Tools as templates know them; the same for whichever client sent them, so that their tokens are the same."""
    return tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools))


def _tool(tool: Tool, path: str) -> dict[str, Any]:
    given = tool.function
    require_shallow(given.parameters, f"{path}.function.parameters")
    function: dict[str, Any] = {"name": given.name}
    if given.description is not None:
        function["description"] = given.description
    function["parameters"] = given.parameters or NO_PARAMETERS
    return {"type": "function", "function": function}
