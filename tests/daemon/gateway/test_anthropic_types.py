"""The types, the documentation and the SDK agree on the fields."""

from __future__ import annotations

import re
from pathlib import Path

from anthropic.types import message_count_tokens_params, message_create_params
from anthropic.types.beta import message_create_params as beta_create_params

from stoker.daemon.gateway.anthropic_types import IGNORED, NEUTRAL, CountRequest, MessagesRequest

DOC = Path(__file__).parents[3] / "docs" / "anthropic.md"
ROW = re.compile(r"^\| `(\w+)` \| (honoured|ignored|neutral) \|( counted)? *\|", re.MULTILINE)


def kind(name: str) -> str:
    """What becomes of a field."""
    return "ignored" if name in IGNORED else "neutral" if name in NEUTRAL else "honoured"


def test_documentation_lists_every_field() -> None:
    """`docs/anthropic.md` says of each field what becomes of it, and whether a count takes it."""
    counted = CountRequest.__struct_fields__
    documented = {(name, kind, bool(mark)) for name, kind, mark in ROW.findall(DOC.read_text(encoding="utf-8"))}

    assert documented == {(name, kind(name), name in counted) for name in MessagesRequest.__struct_fields__}


def test_every_field_of_the_sdk_has_a_decision() -> None:
    """No parameter that the installed Anthropic client can send is refused only for being unknown."""
    headers = {"betas"}
    plain = set(message_create_params.MessageCreateParamsBase.__annotations__)
    beta = set(beta_create_params.MessageCreateParamsBase.__annotations__)
    count = set(message_count_tokens_params.MessageCountTokensParams.__annotations__)

    assert (plain | beta) - headers - set(MessagesRequest.__struct_fields__) == set()
    assert count - set(CountRequest.__struct_fields__) == set()
