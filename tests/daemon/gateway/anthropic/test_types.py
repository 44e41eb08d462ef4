"""The types, the documentation and the SDK agree on the fields."""

from __future__ import annotations

from pathlib import Path

from anthropic.types import message_count_tokens_params, message_create_params
from anthropic.types.beta import message_create_params as beta_create_params

from stoker.daemon.gateway.anthropic.types import IGNORED, NEUTRAL, CountRequest, MessagesRequest
from stoker.daemon.gateway.reference import fields_table

DOCUMENT = (Path(__file__).parents[4] / "docs" / "anthropic.md").read_text(encoding="utf-8")


def test_documentation_lists_every_field() -> None:
    """`docs/anthropic.md` has the table that the types give, to the letter."""
    assert fields_table(MessagesRequest, IGNORED, NEUTRAL) in DOCUMENT


def test_documentation_says_what_a_count_takes() -> None:
    """The fields that make a prompt come first, and the documentation names their range."""
    counted = CountRequest.__struct_fields__

    assert MessagesRequest.__struct_fields__[: len(counted)] == counted
    assert f"from `{counted[0]}` to `{counted[-1]}`" in DOCUMENT


def test_every_field_of_the_sdk_has_a_decision() -> None:
    """No parameter that the installed Anthropic client can send is refused only for being unknown."""
    headers = {"betas"}
    plain = set(message_create_params.MessageCreateParamsBase.__annotations__)
    beta = set(beta_create_params.MessageCreateParamsBase.__annotations__)
    count = set(message_count_tokens_params.MessageCountTokensParams.__annotations__)

    assert (plain | beta) - headers - set(MessagesRequest.__struct_fields__) == set()
    assert count - set(CountRequest.__struct_fields__) == set()
