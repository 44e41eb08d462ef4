"""What a tool call must look like to be read as one, as a grammar in llguidance's dialect of Lark.

Only for formats whose arguments are JSON: there the tool's own schema is the grammar of the arguments.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from .errors import InvalidRequest, Unsupported

Marker: TypeAlias = Callable[[str], str]
"""A format's mark to what the grammar calls it: the token, or its text where no token is the mark."""

BLANKS = r"[ \n\t\r]{1,32}"
"""Between the parts of a JSON text. Bounded: a weak model that may write blanks sometimes writes nothing else."""

LENIENT = {"x-guidance": {"lenient": True, "whitespace_pattern": BLANKS}}
"""Keywords that the library doesn't know are left out of a tool's schema: a client can't change the tools it offers,
and a call that fits the rest serves it better than a refusal."""

FORMATS = ("json_tools", "mistral")
"""Of mlx-lm's tool parsers, those that can be constrained."""


def named(tools: Sequence[Mapping[str, Any]], name: str | None) -> list[Mapping[str, Any]]:
    """Descriptions of the tools that may be called: the one of this name, or all.

    Raises:
        InvalidRequest: There is none, or one is no description of a function.
    """
    functions = [_function(tool) for tool in tools]
    chosen = [function for function in functions if name in (None, function["name"])]
    if not chosen:
        offered = ", ".join(repr(function["name"]) for function in functions) or "none"
        wanted = "any tool" if name is None else f"the tool {name!r}"
        raise InvalidRequest(f"the answer shall call {wanted}; offered are: {offered}", field="constraint")
    return chosen


def grammar(
    kind: str,
    functions: Sequence[Mapping[str, Any]],
    marker: Marker,
    *,
    header: bool,
    several: bool,
    instead: Mapping[str, Any] | None = None,
) -> str:
    """The grammar of an answer that calls one of these functions.

    Args:
        kind: mlx-lm's name of the format.
        functions: Name and parameters of each.
        marker: For the format's marks.
        header: Of mistral's two forms, `name[ARGS]{…}`.
        several: More calls may follow the first.
        instead: A JSON Schema; a value that fits it will do as well.

    Raises:
        Unsupported: The format's arguments are no JSON.
    """
    arguments = [f"arguments_{place}: %json {_schema(function)}" for place, function in enumerate(functions)]
    if kind == "json_tools":
        rules = _wrapped(functions, marker, several=several)
    elif kind == "mistral":
        rules = (_headed if header else _listed)(functions, marker, several=several)
    else:
        raise Unsupported(
            f"a tool call of the format {kind!r} can't be constrained; formats that can: {', '.join(FORMATS)}",
            remedy="send neither response_format beside tools nor a tool_choice that demands a call",
            field="constraint",
        )
    if instead is None:
        return "\n".join(["start: calls", *rules, *arguments, ""])
    answer = f"answer: %json {json.dumps({**instead, 'x-guidance': {'whitespace_pattern': BLANKS}})}"
    return "\n".join(["start: answer | calls", answer, *rules, *arguments, ""])


def _wrapped(functions: Sequence[Mapping[str, Any]], marker: Marker, *, several: bool) -> list[str]:
    """Hermes, Qwen: an object between two marks, on lines of their own."""
    return [
        f"calls: call{_more(several=several, before=quoted(chr(10)) + '? ')}",
        f'call: {marker("<tool_call>")} "\\n"? object "\\n"? {marker("</tool_call>")}',
        f"object: {_objects(functions)}",
    ]


def _listed(functions: Sequence[Mapping[str, Any]], marker: Marker, *, several: bool) -> list[str]:
    """Mistral's older form: a list of objects after one mark."""
    return [
        f'calls: {marker("[TOOL_CALLS]")} " "? "[" call{_more(several=several, before=quoted(", "))} "]"',
        f"call: {_objects(functions)}",
    ]


def _headed(functions: Sequence[Mapping[str, Any]], marker: Marker, *, several: bool) -> list[str]:
    """Mistral's newer form: a name, a mark, and the arguments."""
    forms = (f"{quoted(function['name'])} {marker('[ARGS]')} arguments_{n}" for n, function in enumerate(functions))
    return [
        f"calls: call{_more(several=several)}",
        f"call: {marker('[TOOL_CALLS]')} ({' | '.join(forms)})",
    ]


def _objects(functions: Sequence[Mapping[str, Any]]) -> str:
    heads = (f'{{"name": {json.dumps(function["name"])}, "arguments": ' for function in functions)
    return " | ".join(f'{quoted(head)} arguments_{place} "}}"' for place, head in enumerate(heads))


def _more(*, several: bool, before: str = "") -> str:
    return f" ({before} call)*" if several else ""


def quoted(text: str) -> str:
    """A text as a Lark string."""
    return json.dumps(text)


def _schema(function: Mapping[str, Any]) -> str:
    """Of the arguments: the tool's own, or any object. On one line."""
    schema = function.get("parameters") or {"type": "object"}
    if not isinstance(schema, Mapping):
        raise InvalidRequest(f"the parameters of the tool {function['name']!r} are no object", field="tools")
    if schema.get("type") is None:
        schema = {**schema, "type": "object"}
    return json.dumps({**schema, **LENIENT})


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InvalidRequest("a tool has no function with a name", field="tools")
    return function
