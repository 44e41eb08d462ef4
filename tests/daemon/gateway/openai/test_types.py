"""The types, the documentation and the SDK agree on the fields."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from openai.types import completion_create_params as text_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.shared import ReasoningEffort

from stoker.daemon.gateway.openai.types import (
    COMPLETION_NEUTRAL,
    IGNORED,
    NEUTRAL,
    ChatRequest,
    CompletionRequest,
    Effort,
)
from stoker.daemon.gateway.reference import fields_table

DOCUMENT = (Path(__file__).parents[4] / "docs" / "openai.md").read_text(encoding="utf-8")


def test_documentation_lists_every_field() -> None:
    """`docs/openai.md` has the tables that the types give, to the letter."""
    assert fields_table(ChatRequest, IGNORED, NEUTRAL) in DOCUMENT
    assert fields_table(CompletionRequest, IGNORED, COMPLETION_NEUTRAL) in DOCUMENT


def test_every_field_of_the_sdk_has_a_decision() -> None:
    """No parameter that the installed OpenAI client can send is refused only for being unknown."""
    chat = set(chat_params.CompletionCreateParamsBase.__annotations__)
    text = set(text_params.CompletionCreateParamsBase.__annotations__)

    assert chat - set(ChatRequest.__struct_fields__) == set()
    assert text - set(CompletionRequest.__struct_fields__) == set()


def test_every_effort_of_the_sdk_is_known() -> None:
    """No word of the installed OpenAI client for how hard to think is refused."""
    (words, _none) = get_args(ReasoningEffort)

    assert set(get_args(words)) == set(get_args(Effort))
