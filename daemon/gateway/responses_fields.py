"""What is wrong with a field, from what msgspec says of it."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from .errors import ApiError

_COMPLAINT = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_FIELD = re.compile(r"Object (?P<problem>contains unknown|missing required) field `(?P<name>[^`]*)`")

T = TypeVar("T")


def decoded(data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """A body.

    Raises:
        ApiError: 400, naming the field that is wrong.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise wrong_field(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"The body is not a UTF-8 JSON object: {error}.", code="invalid_json") from None


def converted(value: object, kind: type[T], path: str) -> T:
    """A part of a body that was decoded as plain JSON.

    Raises:
        ApiError: 400, naming the field under `path`.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise wrong_field(str(error), path) from None


def wrong_field(complaint: str, prefix: str = "") -> ApiError:
    """The refusal that a complaint of msgspec's means, about something under `prefix`."""
    parts = _COMPLAINT.fullmatch(complaint)
    what, path = (parts["what"], parts["path"] or "") if parts else (complaint, "")
    path = f"{prefix}.{path}".replace(".[", "[").strip(".")
    field = _FIELD.match(what)
    if field is None:
        return ApiError(400, f"{path or 'body'}: {what}.", param=path or None, code="invalid_value")
    path = f"{path}.{field['name']}".lstrip(".")
    if field["problem"] == "missing required":
        return ApiError(400, f"{path} is required.", param=path, code="missing_required_parameter")
    return ApiError(
        400,
        f"{path} is not supported, and is not ignored either: leave it out.",
        param=path,
        code="unknown_parameter",
    )
