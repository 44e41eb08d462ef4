"""Every refusal on the way from a Messages request's bytes to the worker's terms."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.daemon.gateway.anthropic.types import IGNORED, NEUTRAL
from stoker.ipc.messages import ChatPrompt
from tests.fakes.anthropic_client import WEATHER
from tests.fakes.anthropic_requests import JSON, MARK, USE, read, refusal, user


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [user(None)]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{**user("a"), "name": "b"}]}, "messages[0].name"),
        ({"messages": [user([{"type": "text"}])]}, "messages[0].content[0].text"),
        ({"messages": [user([{"text": "a"}])]}, "messages[0].content[0].type"),
        ({"messages": [user([{"type": "text", "text": "a", "mood": 1}])]}, "messages[0].content[0].mood"),
        ({"messages": [{"role": "assistant", "content": [{**USE, "input": "{}"}]}]}, "messages[0].content[0].input"),
        ({"model": None}, "model"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 2**40}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"system": 3}, "system"),
        ({"temperature": 1.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"stop_sequences": "a"}, "stop_sequences"),
        ({"stop_sequences": ["a", ""]}, "stop_sequences[1]"),
        ({"metadata": []}, "metadata"),
        ({"thinking": {"type": "often"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "mood": 1}}, "thinking.mood"),
        ({"output_config": {"format": {"type": "json_object"}}}, "output_config.format.type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{"name": "", "input_schema": {}}]}, "tools[0].name"),
        ({"tools": [WEATHER, {**WEATHER, "mood": 1}]}, "tools[1].mood"),
        ({"tools": [{**WEATHER, "type": 3}]}, "tools[0].type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "must"}}, "tool_choice.type"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "f"}}, "tool_choice.name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"horoscope": 1}, "horoscope"),
    ],
    ids=str,
)
def test_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    """A field that is missing, unknown, of the wrong type or out of range is named by its path, in the text too."""
    error = refusal(**fields)

    assert error.fault.param == param
    assert param in error.fault.message


def nested(levels: int) -> Any:
    """An object so many levels deep."""
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{**WEATHER, "input_schema": nested(200)}]}, "tools[0]"),
        ({"output_config": {"format": {**JSON, "schema": nested(200)}}}, "output_config.format.schema"),
        (
            {"messages": [user("a"), {"role": "assistant", "content": [{**USE, "input": nested(200)}]}]},
            "messages[1].content[0].input",
        ),
    ],
    ids=["tool", "format", "input"],
)
def test_what_is_nested_too_deeply_is_refused(fields: dict[str, Any], param: str) -> None:
    """Values that go to the worker as they are have a depth that every decoder on the way can take."""
    assert refusal(**fields).fault.param == param


@pytest.mark.parametrize("place", ["messages[0].content[1]", "messages[0].content[0].content[1]", "system[1]"])
@pytest.mark.parametrize("kind", ["image", "document", "search_result", "server_tool_use"])
def test_other_content_than_text_is_refused_by_name(kind: str, place: str) -> None:
    """Images and the like are refused wherever they stand, and no URL in them is looked at."""
    text = {"type": "text", "text": "a"}
    blocks = [text, {"type": kind, "source": {"type": "url", "url": "http://127.0.0.1:1/x.png"}}]
    inner = [{"type": "tool_result", "tool_use_id": "t", "content": blocks}]
    content = {"messages[0].content[1]": blocks, "messages[0].content[0].content[1]": inner}.get(place, "Hi")
    error = refusal(messages=[user(content)], **({"system": blocks} if place == "system[1]" else {}))

    assert error.fault.param == place
    assert f"`{kind}`" in error.fault.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mcp_servers", [{"type": "url", "url": "http://127.0.0.1:1", "name": "x"}]),
        ("container", "container_1"),
        ("compaction", {"type": "compact"}),
        ("thread", {"id": "t"}),
    ],
)
def test_what_is_not_built_is_refused_not_ignored(name: str, value: Any) -> None:
    """A field that would change the answer, and is not honoured, is a 400 that names it."""
    error = refusal(**{name: value})

    assert name in NEUTRAL
    assert (error.fault.param, error.fault.code) == (name, "unsupported_parameter")


def test_neutral_values_are_accepted() -> None:
    """Clients that spell out that they want nothing of it are served."""
    assert [read(**{name: value}) for name, values in NEUTRAL.items() for value in values] == [read()]


def test_edits_of_thinking_are_the_templates() -> None:
    """The edit that agents send with each request is accepted; one that would shorten the conversation is not."""
    keep_all = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    clear = {"edits": [{"type": "clear_tool_uses_20250919", "trigger": {"type": "input_tokens", "value": 100}}]}

    assert read(context_management=keep_all) == read(context_management={"edits": []}) == read()
    assert "clear_tool_uses_20250919" in refusal(context_management=clear).fault.message


def test_what_a_coding_agent_sends_is_understood() -> None:
    """All that Claude Code 2.1 puts into each request is read: accounting, marks, betas, a system message inside."""
    text = {"type": "text", "text": "a"}
    header = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.197.c40; cc_entrypoint=sdk-cli;"}
    call = read(
        system=[header, {**text, **MARK}, {**text, **MARK}],
        tools=[WEATHER],
        messages=[
            user([text, {**text, **MARK}]),
            {"role": "system", "content": "Available agents: none."},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "stoker"},
                    {**text, "citations": None},
                    USE,
                ],
            },
            user([{"type": "tool_result", "tool_use_id": "toolu_1", "content": "b", "is_error": False, **MARK}]),
        ],
        metadata={"user_id": "{}"},
        max_tokens=32000,
        thinking={"type": "adaptive"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        output_config={"effort": "high"},
        stream=True,
    )
    assert isinstance(call.body.prompt, ChatPrompt)

    assert [message["role"] for message in call.body.prompt.messages] == ["system", "user", "assistant", "tool"]
    assert call.body.prompt.template_args == {"enable_thinking": True, "reasoning_effort": "high"}
    assert (call.stream, call.body.keep, call.body.max_tokens) == (True, True, 32000)


def test_harmless_fields_change_nothing() -> None:
    """Accounting, places and fallbacks are accepted, and make no difference."""
    harmless = {
        "speed": "fast",
        "user_profile_id": "u",
        "workspace_id": "w",
        "metadata": {"user_id": "u"},
        "service_tier": "auto",
        "inference_geo": "eu",
        "diagnostics": {"previous_message_id": None},
        "billing_policy": {},
        "fallback_credit_token": "t",
        "fallbacks": "default",
    }

    assert set(harmless) == IGNORED
    assert read(**harmless) == read()
