"""What a chat template gets to see of the messages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.openai_requests import CALL, prompt_of, refusal


def messages(*given: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """What the template gets for these messages."""
    return prompt_of(messages=given).messages


def test_system_and_developer_are_one_role() -> None:
    """Templates know `system` only."""
    roles = [
        each["role"] for each in messages({"role": "system", "content": "a"}, {"role": "developer", "content": "b"})
    ]

    assert roles == ["system", "system"]


def test_text_parts_are_joined() -> None:
    """A list of text parts means their text, hints for other servers' caches left aside."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}]

    assert messages({"role": "user", "content": parts}) == ({"role": "user", "content": "ab"},)


def test_tool_conversation_reaches_the_template() -> None:
    """Calls come with their arguments as an object, results with the call's id."""
    rendered = messages(
        {"role": "user", "content": "1+?", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    )

    assert rendered == (
        {"role": "user", "content": "1+?", "name": "ann"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    )


def test_own_answer_may_be_sent_back() -> None:
    """A message as SDKs keep it, with its null members, is accepted as history."""
    kept: dict[str, Any] = {
        "role": "assistant",
        "content": "Hi",
        "refusal": None,
        "audio": None,
        "function_call": None,
        "tool_calls": None,
        "annotations": [],
    }

    assert messages(kept) == ({"role": "assistant", "content": "Hi"},)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_other_content_than_text_is_refused_by_name(kind: str) -> None:
    """Images and the like are refused, and no URL in them is looked at."""
    part = {"type": kind, kind: {"url": "http://127.0.0.1:1/x.png"}}
    error = refusal(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, part]}])

    assert error.fault.param == "messages[0].content[1]"
    assert kind in error.fault.message


@pytest.mark.parametrize(
    "arguments", ["[1]", "{", '{"a": ' + "[" * 100 + "]" * 100 + "}"], ids=["list", "half", "deep"]
)
def test_unreadable_tool_arguments_are_refused(arguments: str) -> None:
    """A call in the history whose arguments are no JSON object, or a bottomless one, is named, not passed on."""
    call = {**CALL, "function": {"name": "add", "arguments": arguments}}
    error = refusal(messages=[{"role": "assistant", "tool_calls": [call]}])

    assert error.fault.param == "messages[0].tool_calls[0].function.arguments"
