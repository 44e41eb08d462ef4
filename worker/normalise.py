"""Client noise, taken out before it reaches the chat template.

Clients put things into their prompts that differ in each request and mean nothing to a model. After one such byte
near the beginning nothing is shared with the request before, and a long prefix is computed again. This is all that is
done about it; `normalise = false` turns it off:

| noise | where | becomes |
|---|---|---|
| `x-anthropic-billing-header: cc_version=…; cch=…;` | a line or a part of system and developer messages | nothing; \
a part or message that was nothing else goes with it |
| `cache_control` | messages, content parts (those of tool results too), tool calls, tools | nothing |
| order of keys | tools and their JSON schemas | one order (below) |

The first is an agent's accounting: hashes of the request and of the one before. The second marks what another
server shall cache, and moves on with each turn. The third comes from clients whose maps have no order; the one order
is that of most texts models were trained on: `type`, `name`, `description`, `parameters`; in a schema `type`,
`description`, `properties`, `required`, then the rest by name; required properties first, as `required` lists them.

Nothing else is touched: neither white space, nor user texts, nor the order of tools, of list items or of a tool
call's arguments, and no property of a schema that happens to be called `cache_control`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from ..ipc.messages import ChatPrompt, Prompt

Fields: TypeAlias = Mapping[str, Any]

SYSTEM_ROLES = frozenset({"system", "developer"})

DEEPEST = 64
"""Levels of a schema that are ordered; what lies deeper stays as it came. Real schemas have less than ten."""

_FIELD = r"[ \t]*[A-Za-z][\w.-]*=[^;\s]*(?:;|(?=[ \t]*(?:[\r\n]|\Z)))"
_HEADER = rf"(?:[ \t]*x-anthropic-billing-header:(?:{_FIELD})+)+"
# Only fields are taken, not the rest of the line: where parts were joined without a newline, that is the prompt.
# At the beginning, the empty lines go that stood between the header and the prompt.
_NOISE = re.compile(
    rf"\A{_HEADER}(?:[ \t]*\r?\n)*|^{_HEADER}(?:[ \t]*\r?\n)?",
    re.MULTILINE | re.IGNORECASE,
)

_TOOL_KEYS = ("type", "function", "name", "description", "parameters", "input_schema")
_SCHEMA_KEYS = ("$schema", "type", "title", "description", "enum", "const", "items", "properties", "required")
_SCHEMAS = frozenset({"parameters", "input_schema"})
"""Keys of a tool that hold a schema: OpenAI's and Anthropic's."""
_NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
"""Keywords whose objects have names of the author's for keys, not keywords."""
_VALUES = frozenset({"default", "const", "enum", "example", "examples"})
"""Keywords that hold values, which may look like schemas and are none."""


def normalised(prompt: Prompt, *, normalise: bool = True) -> Prompt:
    """The prompt without noise. Twice is once. The given one isn't changed, but may share parts with the result.

    Args:
        prompt: Of any kind; only conversations have noise.
        normalise: False returns the prompt as it is.
    """
    if not normalise or not isinstance(prompt, ChatPrompt):
        return prompt
    return ChatPrompt(
        messages=normalised_messages(prompt.messages),
        tools=normalised_tools(prompt.tools),
        template_args=prompt.template_args,
    )


def normalised_messages(messages: Sequence[Fields]) -> tuple[dict[str, Any], ...]:
    """Messages without noise. Where all of them were nothing else, the last one stays, empty."""
    cleaned = [_message(message) for message in messages]
    kept = tuple(message for message in cleaned if message is not None)
    return kept or tuple({**_unmarked(message), "content": ""} for message in messages[-1:])


def normalised_tools(tools: Iterable[Fields]) -> tuple[dict[str, Any], ...]:
    """Tools without noise, in the order in which they came."""
    return tuple(_tool(tool) for tool in tools)


def without_billing_header(text: str) -> str:
    """A system text without an agent's accounting; any other text as it is."""
    return _NOISE.sub("", text)


# -- messages ----------------------------------------------------------------------------------------------


def _message(message: Fields) -> dict[str, Any] | None:
    """None where nothing but noise was in it."""
    plain = _unmarked(message)
    if isinstance(calls := plain.get("tool_calls"), list | tuple):
        plain["tool_calls"] = [_unmarked(call) if isinstance(call, Mapping) else call for call in calls]
    content = plain.get("content")
    if isinstance(content, list | tuple):
        content = [_part(part) for part in content]
    if plain.get("role") in SYSTEM_ROLES:
        cleaned = _without_header(content)
        if cleaned != content and not cleaned:
            return None
        content = cleaned
    return plain if content is None else {**plain, "content": content}


def _part(part: Any) -> Any:
    if not isinstance(part, Mapping):
        return part
    plain = _unmarked(part)
    if isinstance(content := plain.get("content"), list | tuple):  # a tool's result has parts of its own
        plain["content"] = [_unmarked(inner) if isinstance(inner, Mapping) else inner for inner in content]
    return plain


def _without_header(content: Any) -> Any:
    """A system message's text or parts; those that were nothing but the header are left out."""
    if isinstance(content, str):
        return _cleaned(content)
    if isinstance(content, list):
        cleaned_parts = [(part, _cleaned_part(part)) for part in content]
        return [cleaned for part, cleaned in cleaned_parts if cleaned == part or cleaned]
    return content


def _cleaned_part(part: Any) -> Any:
    """Nothing where nothing else was in it."""
    if isinstance(part, str):
        return _cleaned(part)
    if isinstance(part, Mapping) and isinstance(text := part.get("text"), str):
        cleaned = _cleaned(text)
        return {**part, "text": cleaned} if cleaned or cleaned == text else {}
    return part


def _cleaned(text: str) -> str:
    cleaned = without_billing_header(text)
    return "" if cleaned != text and not cleaned.strip() else cleaned


def _unmarked(fields: Fields) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != "cache_control"}


# -- tools -------------------------------------------------------------------------------------------------


def _tool(tool: Fields) -> dict[str, Any]:
    plain = _described(tool)
    if isinstance(function := tool.get("function"), Mapping):
        plain["function"] = _described(function)
    return plain


def _described(fields: Fields) -> dict[str, Any]:
    """Name, description and schema: OpenAI has them in `function`, Anthropic in the tool itself."""
    ordered = _ordered(_unmarked(fields), _TOOL_KEYS)
    return {key: _schema(value) if key in _SCHEMAS else _value(value) for key, value in ordered.items()}


def _schema(schema: Any, depth: int = 0) -> Any:
    if depth >= DEEPEST:
        return schema
    if isinstance(schema, list | tuple):
        return [_schema(item, depth + 1) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    ordered = _ordered(schema, _SCHEMA_KEYS)
    required = schema.get("required")
    for key, value in ordered.items():
        if key in _NAMED_SCHEMAS and isinstance(value, Mapping):
            first = required if key == "properties" and isinstance(required, list | tuple) else ()
            ordered[key] = {name: _schema(each, depth + 1) for name, each in _ordered(value, first).items()}
        else:
            ordered[key] = _value(value, depth + 1) if key in _VALUES else _schema(value, depth + 1)
    return ordered


def _value(value: Any, depth: int = 0) -> Any:
    """A JSON value with its keys sorted."""
    if depth >= DEEPEST:
        return value
    if isinstance(value, Mapping):
        return {key: _value(value[key], depth + 1) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_value(item, depth + 1) for item in value]
    return value


def _ordered(fields: Fields, first: Sequence[Any]) -> dict[str, Any]:
    """The fields named in `first` in that order, then the others by name."""
    known = [key for key in dict.fromkeys(item for item in first if isinstance(item, str)) if key in fields]
    return {key: fields[key] for key in (*known, *sorted(fields.keys() - set(known)))}
