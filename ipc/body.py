"""What every message of both sockets is made of."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

import msgspec

Id: TypeAlias = int | str
"""A JSON-RPC request id. The daemon counts up integers; null is not an id here."""


class Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Params of a request or a notification."""

    METHOD: ClassVar[str]


class Result(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """The answer to a request; `kind` on the wire is the class name in lower case."""
