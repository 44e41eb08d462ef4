"""A finding, and how bad it is."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Level: TypeAlias = Literal["ok", "note", "wrong"]
"""`note`: it works, and could be better. `wrong`: something that was asked for won't work."""


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was looked at, and what was found; `remedy` is what to do about it."""

    subject: str
    level: Level
    text: str
    remedy: str | None = None
    figures: dict[str, float] = {}
    """What was measured, for programs, in units of the control socket."""


def ok(subject: str, text: str) -> Finding:
    """All is well."""
    return Finding(subject, "ok", text)


def note(subject: str, text: str, remedy: str | None = None) -> Finding:
    """It works, and could be better."""
    return Finding(subject, "note", text, remedy)


def wrong(subject: str, text: str, remedy: str) -> Finding:
    """It won't work."""
    return Finding(subject, "wrong", text, remedy)


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / (1 << 30):.1f} GiB"
