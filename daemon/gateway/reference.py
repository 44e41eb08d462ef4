"""The documentation's tables of request fields, made from the types: they can't say anything else than the code."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import inspect

HEAD = "| field | kind | accepts | notes |\n|---|---|---|---|"


def fields_table(
    request: type[msgspec.Struct], ignored: Collection[str], neutral: Mapping[str, tuple[Any, ...]]
) -> str:
    """A Markdown table of a request's fields, in the order of its type.

    Args:
        request: The type; the notes are its descriptions.
        ignored: Fields that can't change the answer.
        neutral: Fields of what is not built, each with the values that don't ask for it.
    """
    return "\n".join([HEAD, *_rows(request, ignored, neutral)])


def _rows(
    request: type[msgspec.Struct], ignored: Collection[str], neutral: Mapping[str, tuple[Any, ...]]
) -> Iterator[str]:
    about = inspect.type_info(request)
    for field in about.fields if isinstance(about, inspect.StructType) else ():
        name = field.encode_name
        if name in neutral:
            kind, accepts = (
                "neutral",
                ", ".join(f"`{msgspec.json.encode(value).decode()}`" for value in neutral[name]),
            )
        else:
            kind, accepts = "ignored" if name in ignored else "honoured", _accepted(field.type)
        yield f"| `{name}` | {kind} | {accepts or 'null'} | {_description(field.type)} |".replace("|  |", "| |")


def _description(about: inspect.Type) -> str:
    if isinstance(about, inspect.Metadata):
        return str((about.extra_json_schema or {}).get("description", ""))
    if isinstance(about, inspect.UnionType):
        return next(filter(None, map(_description, about.types)), "")
    return ""


def _accepted(about: inspect.Type) -> str:
    match about:
        case inspect.Metadata(type=inner):
            return _accepted(inner)
        case inspect.UnionType(types=types):
            kinds = (_accepted(each) for each in types if not isinstance(each, inspect.NoneType))
            return " or ".join(dict.fromkeys(kinds))
        case inspect.LiteralType(values=values):
            return ", ".join(f"`{value}`" for value in values)
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return f"list of {_accepted(item)}"
        case inspect.IntType() | inspect.FloatType():
            return _WORDS[type(about)] + _bounds(about)
    return _WORDS.get(type(about), "object")


_WORDS: Mapping[type[inspect.Type], str] = {
    inspect.BoolType: "true, false",
    inspect.StrType: "text",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
}

_LARGEST = 1 << 31
"""Bounds from here on are no news to anybody."""


def _bounds(about: inspect.IntType | inspect.FloatType) -> str:
    least = f"above {about.gt}" if about.gt is not None else None if about.ge is None else str(about.ge)
    most = None if about.le is None or about.le >= _LARGEST - 1 else str(about.le)
    if least is None:
        return ""
    return f", {least} to {most}" if most else f", from {least}"
