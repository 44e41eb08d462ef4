"""Items become messages as chat templates know them."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.daemon.gateway.errors import ApiError
from stoker.daemon.gateway.responses.items import read_messages


def message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def call(name: str, arguments: str = '{"a": 1}', call_id: str = "call_1") -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def called(name: str, call_id: str = "call_1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": {"a": 1}}}


def test_string_is_what_the_user_said() -> None:
    """A plain input is one user message, after the instructions."""
    assert read_messages("Hi", "Be brief.") == (message("system", "Be brief."), message("user", "Hi"))
    assert read_messages("Hi", None) == (message("user", "Hi"),)


def test_parts_are_joined() -> None:
    """Text parts of either direction are one text, and an item without a type is a message."""
    parts = [{"type": "input_text", "text": "Hel"}, {"type": "input_text", "text": "lo"}]
    said = {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}],
    }

    assert read_messages([{"role": "user", "content": parts}, said], None) == (
        message("user", "Hello"),
        message("assistant", "Hi"),
    )


def test_instructions_and_first_system_messages_are_one() -> None:
    """Templates take one system message, and first: instructions, system and developer messages are joined."""
    given = [message("developer", "No jokes."), message("user", "Hi"), message("developer", "Now joke.")]

    assert read_messages(given, "Be brief.") == (
        message("system", "Be brief.\n\nNo jokes."),
        message("user", "Hi"),
        message("system", "Now joke."),
    )


def test_turn_of_the_model_is_one_message() -> None:
    """What it thought, said and called in one turn is one message; each function's answer is one of its own."""
    given = [
        message("user", "Look."),
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        message("assistant", "I look."),
        call("look"),
        call("listen", call_id="call_2"),
        {"type": "function_call_output", "call_id": "call_1", "output": "dark"},
        {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "loud"}]},
        message("assistant", "Dark and loud."),
    ]

    assert read_messages(given, None) == (
        message("user", "Look."),
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "Hm.",
            "tool_calls": [called("look"), called("listen", "call_2")],
        },
        {"role": "tool", "content": "dark", "tool_call_id": "call_1"},
        {"role": "tool", "content": "loud", "tool_call_id": "call_2"},
        message("assistant", "Dark and loud."),
    )


def test_two_answers_in_a_row_stay_two() -> None:
    """What was said after a call, or after something else that was said, is not joined with it."""
    given = [message("assistant", "One."), message("assistant", "Two."), call("look"), message("assistant", "Three.")]

    assert [(each["content"], "tool_calls" in each) for each in read_messages(given, None)] == [
        ("One.", False),
        ("Two.", True),
        ("Three.", False),
    ]


def test_encrypted_reasoning_is_left_out() -> None:
    """Reasoning that only another server could read makes no empty message; a summary is read where there is one."""
    encrypted = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
    summed = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Sum."}]}

    assert read_messages([encrypted, message("user", "Hi")], None) == (message("user", "Hi"),)
    assert read_messages([summed, message("user", "Hi")], None)[0]["reasoning_content"] == "Sum."


@pytest.mark.parametrize(
    ("item", "param", "words"),
    [
        ({"type": "item_reference", "id": "msg_1"}, "input[0]", "not stored"),
        ({"type": "web_search_call"}, "input[0]", "`web_search_call` are not supported"),
        ({"type": 7}, "input[0]", "not supported"),
        ({"type": "message", "role": "robot", "content": ""}, "input[0].role", "robot"),
        ({"role": "user"}, "input[0].content", "required"),
        ({"role": "user", "content": "", "mood": 1}, "input[0].mood", "not ignored"),
        ({"role": "user", "content": [{"type": "input_image"}]}, "input[0].content[0]", "never fetches a URL"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0].text", "required"),
        (call("look", "dark"), "input[0].arguments", "not a JSON object"),
        (call("look", "[1]"), "input[0].arguments", "not a JSON object"),
    ],
)
def test_items_that_cannot_be_read_are_named(item: dict[str, Any], param: str, words: str) -> None:
    """The refusal says which item, which field, and why."""
    with pytest.raises(ApiError, match=words) as caught:
        read_messages([item], None)

    assert (caught.value.status, caught.value.fault.param) == (400, param)
