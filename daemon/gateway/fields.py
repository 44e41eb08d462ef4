"""What requests of all APIs have in common: how a body is decoded, and how a wrong field is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from ..dispatch import RequestFailed
from .errors import ApiError

Neutral = Mapping[str, tuple[Any, ...]]
"""Fields of what is not built, each with its values, beside null, that don't ask for it."""

T = TypeVar("T")

_COMPLAINT = re.compile(r"(?P<what>.*?)(?: - at `(?:key` in `)?\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_FIELD = re.compile(r"Object (?P<problem>contains unknown|missing required) field `(?P<name>[^`]*)`")
_INDEX = re.compile(r"\[\d+\]")

MAX_DEPTH = 100
"""Levels of a value that goes to the worker as it is: no schema needs as many, and each is a frame of a decoder's."""


def decoded(decoder: msgspec.json.Decoder[T], data: bytes, choices: Mapping[str, str]) -> T:
    """A request, in its types.

    Args:
        decoder: Of the request's type.
        data: The body.
        choices: What may stand in fields that have a choice, for people: by path, with `[]` for any index.

    Raises:
        ApiError: 400, naming the field and what it may be.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error), choices) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"The body is not a UTF-8 JSON object: {error}.", code="invalid_json") from None


def converted(value: object, kind: type[T], path: str) -> T:
    """A part of a request that was decoded as plain JSON, in its type.

    Raises:
        ApiError: 400, naming the field under `path`.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error), {}, path) from None


def wrong_value(path: str, what: str) -> ApiError:
    """The refusal of a field's value; `what` goes on from the field's name."""
    return ApiError(400, f"{path} {what}.", param=path, code="invalid_value")


def not_built(path: str, way_out: str) -> ApiError:
    """The refusal of a feature; `way_out` says what to do instead."""
    return ApiError(
        400,
        f"{path} is not supported, and is not ignored either: {way_out}.",
        param=path,
        code="unsupported_parameter",
    )


def refuse_unless_neutral(request: msgspec.Struct, neutral: Neutral, instead: Mapping[str, str]) -> None:
    """Refuse what is not built.

    Args:
        request: The request.
        neutral: Values that don't ask for it.
        instead: For some fields, what to do instead.

    Raises:
        ApiError: 400, naming the first such field.
    """
    for name, values in neutral.items():
        value = getattr(request, name)
        if value is not None and value not in values:
            allowed = " or ".join([*(msgspec.json.encode(each).decode() for each in values), "null"])
            raise not_built(name, instead.get(name, f"leave it out, or send {allowed}"))


@contextmanager
def in_terms_of(fields: Mapping[str | None, str]) -> Iterator[None]:
    """Have what the worker refuses name the client's fields.

    Args:
        fields: What the client calls a field of the worker's request; None is a refusal that names none.
    """
    try:
        yield
    except RequestFailed as failure:
        field = fields.get(failure.data.field, failure.data.field)
        raise RequestFailed(
            failure.code, failure.message, msgspec.structs.replace(failure.data, field=field)
        ) from failure


def require_shallow(value: object, path: str) -> None:
    """Refuse what is nested so deeply that a decoder may give up on it, at the latest in the worker.

    Raises:
        ApiError: 400, naming the field.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for each in level for child in _children(each) if isinstance(child, dict | list)]
        if not level:
            return
    raise wrong_value(path, f"is nested too deeply: {MAX_DEPTH} levels are possible")


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _wrong_field(complaint: str, choices: Mapping[str, str], prefix: str = "") -> ApiError:
    parts = _COMPLAINT.fullmatch(complaint)
    what, path = (parts["what"], parts["path"] or "") if parts else (complaint, "")
    path = f"{prefix}.{path}".replace(".[", "[").strip(".")
    field = _FIELD.match(what)
    if field is None:
        choice = choices.get(_INDEX.sub("[]", path))
        hint = f"; it may be {choice}" if choice else ""
        return ApiError(400, f"{path or 'body'}: {what}{hint}.", param=path or None, code="invalid_value")
    path = f"{path}.{field['name']}".lstrip(".")
    if field["problem"] == "missing required":
        return ApiError(400, f"{path} is required.", param=path, code="missing_required_parameter")
    return ApiError(
        400,
        f"{path} is not supported, and is not ignored either: leave it out.",
        param=path,
        code="unknown_parameter",
    )
