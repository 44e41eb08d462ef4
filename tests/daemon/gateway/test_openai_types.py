"""The types, the documentation and the SDK agree on the fields."""

from __future__ import annotations

import re
from pathlib import Path

from openai.types.chat import completion_create_params

from stoker.daemon.gateway.openai_types import IGNORED, NEUTRAL, ChatRequest

API = Path(__file__).parents[3] / "docs" / "api.md"
ROW = re.compile(r"^\| `(\w+)` \| (honoured|ignored|neutral) \|", re.MULTILINE)


def kind(name: str) -> str:
    """What becomes of a field."""
    return "ignored" if name in IGNORED else "neutral" if name in NEUTRAL else "honoured"


def test_documentation_lists_every_field() -> None:
    """`docs/api.md` says of each field of the request what becomes of it, in the order of the types."""
    documented = ROW.findall(API.read_text(encoding="utf-8"))

    assert documented == [(name, kind(name)) for name in ChatRequest.__struct_fields__]


def test_every_field_of_the_sdk_has_a_decision() -> None:
    """No parameter that the installed OpenAI client can send is refused only for being unknown."""
    base = set(completion_create_params.CompletionCreateParamsBase.__annotations__)

    assert base - set(ChatRequest.__struct_fields__) == set()
