"""Hypothesis strategies for everything that may go over a wire, derived from the msgspec types themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from stoker.ipc.errors import ErrorData
from stoker.ipc.framing import ID_LIMIT, ErrorResponse, Frame, Notification, Request, Response
from stoker.ipc.messages import Body

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
IDS = INTEGERS | st.text(st.characters(exclude_categories=["Cs"]), max_size=ID_LIMIT)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type that msgspec can decode."""
    return _values(inspect.type_info(kind))


def _values(info: Any) -> st.SearchStrategy[Any]:
    return _STRATEGIES[type(info)](info)


def _struct(info: inspect.StructType) -> st.SearchStrategy[Any]:
    required = {field.name: _values(field.type) for field in info.fields if field.required}
    optional = {field.name: _values(field.type) for field in info.fields if not field.required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda given: info.cls(**given))


_STRATEGIES: Mapping[type, Callable[[Any], st.SearchStrategy[Any]]] = {
    inspect.IntType: lambda _: INTEGERS,
    inspect.FloatType: lambda _: FLOATS,
    inspect.StrType: lambda _: TEXT,
    inspect.BoolType: lambda _: st.booleans(),
    inspect.NoneType: lambda _: st.none(),
    inspect.AnyType: lambda _: JSON,
    inspect.LiteralType: lambda info: st.sampled_from(info.values),
    inspect.VarTupleType: lambda info: st.lists(_values(info.item_type), max_size=3).map(tuple),
    inspect.DictType: lambda info: st.dictionaries(_values(info.key_type), _values(info.value_type), max_size=3),
    inspect.UnionType: lambda info: st.one_of(*map(_values, info.types)),
    inspect.StructType: _struct,
}


def requests(*bodies: type[Body]) -> st.SearchStrategy[Frame]:
    """Requests with these bodies."""
    return st.builds(Request, IDS, st.one_of(*map(values, bodies)))


def notifications(*bodies: type[Body]) -> st.SearchStrategy[Frame]:
    """Notifications with these bodies."""
    return st.builds(Notification, st.one_of(*map(values, bodies)))


def responses(results: Any) -> st.SearchStrategy[Frame]:
    """Answers with these results."""
    return st.builds(Response, IDS, values(results))


def errors() -> st.SearchStrategy[Frame]:
    """Refusals."""
    return st.builds(ErrorResponse, st.none() | IDS, st.integers(-32768, 32767), TEXT, values(ErrorData))


def fields_of(struct: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    """The fields of a struct, as msgspec sees them."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return info.fields
