"""The tables of the documentation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from stoker.daemon.gateway.reference import HEAD, fields_table


class Asked(msgspec.Struct):
    name: Annotated[str, Meta(description="required")]
    size: Annotated[float, Meta(ge=0, le=2, description="how big")] | None = None
    share: Annotated[float, Meta(gt=0, le=1)] | None = None
    count: Annotated[int, Meta(ge=1)] | None = None
    colour: Literal["red", "blue"] | tuple[str, ...] | None = None
    user: bool | None = None
    magic: dict[str, Any] | None = None
    spell: str | None = None


def test_table_says_what_the_types_say() -> None:
    """Each field has a row with its kind, what is accepted, and its description."""
    table = fields_table(Asked, {"user"}, {"magic": (), "spell": ("", "none")})

    assert table.splitlines() == [
        *HEAD.splitlines(),
        "| `name` | honoured | text | required |",
        "| `size` | honoured | number, 0 to 2 | how big |",
        "| `share` | honoured | number, above 0 to 1 | |",
        "| `count` | honoured | integer, from 1 | |",
        "| `colour` | honoured | `blue`, `red` or list of text | |",
        "| `user` | ignored | true, false | |",
        "| `magic` | neutral | null | |",
        '| `spell` | neutral | `""`, `"none"` | |',
    ]
