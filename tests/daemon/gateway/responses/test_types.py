"""What the Responses API accepts is what its page says."""

from __future__ import annotations

from pathlib import Path

import msgspec
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from stoker.daemon.gateway.responses.types import IGNORED, NEUTRAL, ResponsesRequest

PAGE = Path(__file__).parents[4] / "docs" / "responses.md"


KINDS = {"honoured", "ignored", "neutral"}


def kind(name: str) -> str:
    return "ignored" if name in IGNORED else "neutral" if name in NEUTRAL else "honoured"


def test_page_lists_every_field() -> None:
    """`docs/responses.md` says of each field of the request what becomes of it, in the order of the types."""
    rows = [line.split("|")[1:3] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    listed = [(name.strip(" `"), what.strip()) for name, what in rows if what.strip() in KINDS]

    assert listed == [(name, kind(name)) for name in ResponsesRequest.__struct_fields__]


def test_page_names_the_neutral_values() -> None:
    """The values of what is not built that don't ask for it stand beside it."""
    text = PAGE.read_text(encoding="utf-8")
    for name, values in NEUTRAL.items():
        shown = ", ".join(f"`{msgspec.json.encode(value).decode()}`" for value in values)
        assert f"| `{name}` | neutral | {shown}" in text


def test_every_field_of_the_vendor_is_known() -> None:
    """No field that the SDK can send is unknown: each is honoured, ignored, or refused for what it asks."""
    assert set(ResponseCreateParamsBase.__annotations__) <= set(ResponsesRequest.__struct_fields__)
