"""Anthropic's messages, as chat templates get them, and as the worker cleans them."""

from __future__ import annotations

import json
from typing import Any

from stoker.daemon.gateway.anthropic.request import read_messages
from stoker.ipc.messages import ChatPrompt
from stoker.worker.chat import flattened
from stoker.worker.normalise import normalised
from tests.fakes.anthropic_client import WEATHER, ask

USE = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}
CALL = {"id": "toolu_1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}


def prompt(**fields: Any) -> ChatPrompt:
    """The prompt of a good request with these fields changed."""
    found = read_messages(json.dumps(ask(**fields)).encode()).body.prompt
    assert isinstance(found, ChatPrompt)
    return found


def messages(*given: dict[str, Any]) -> list[dict[str, Any]]:
    """What the template gets for these messages."""
    return list(prompt(messages=given).messages)


def text(value: str, **fields: Any) -> dict[str, Any]:
    """A text block."""
    return {"type": "text", "text": value, **fields}


def user(content: Any) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    """An assistant's message."""
    return {"role": "assistant", "content": content}


def test_system_comes_first() -> None:
    """The system prompt is the first message, whether it is a text or blocks; an empty one is none."""
    assert prompt(system="Be brief.").messages[0] == {"role": "system", "content": [text("Be brief.")]}
    assert prompt(system=[text("a"), text("b")]).messages[0]["content"] == [text("a\n"), text("b")]
    assert prompt(system=None) == prompt(system="") == prompt(system=[]) == prompt()


def test_blocks_are_separated() -> None:
    """A newline keeps a block from running into the next, unless there is one already."""
    assert messages(user([text("a"), text("b\n"), text(""), text("c")])) == [user("a\nb\nc")]


def test_consecutive_messages_of_a_role_are_one() -> None:
    """Turns alternate for the template, however the client cut them."""
    given = [user("a"), user([text("b")]), assistant("c"), assistant([text("d")]), user("e")]

    assert messages(*given) == [user("a\nb"), assistant("c\nd"), user("e")]


def test_system_message_in_the_middle_is_told_in_the_users_turn() -> None:
    """What agents add to the instructions later reaches also those templates that take them at the beginning only."""
    rendered = messages(user("a"), {"role": "system", "content": [text("b")]}, assistant("c"))

    assert rendered == [user("a\n<system-reminder>\nb\n</system-reminder>"), assistant("c")]


def test_system_message_at_the_beginning_belongs_to_the_system_prompt() -> None:
    """Before anything was said, there is one system message, wherever its parts came from."""
    found = prompt(system="a", messages=[{"role": "system", "content": "b"}, user("c")])

    assert list(found.messages) == [{"role": "system", "content": [text("a\n"), text("b")]}, user("c")]


def test_tool_conversation_is_in_the_form_of_templates() -> None:
    """A call stands beside the text with its input as an object; its result comes next, with the tool's name."""
    rendered = messages(
        user("Weather?"),
        assistant([{"type": "thinking", "thinking": "hm", "signature": "x"}, text("Let me see."), USE]),
        user([RESULT]),
    )

    assert rendered == [
        user("Weather?"),
        {"role": "assistant", "content": "Let me see.", "reasoning_content": "hm", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "toolu_1", "name": "get_weather", "content": "sunny"},
    ]


def test_results_come_before_the_users_text() -> None:
    """Whatever its place among the blocks, a result follows its call, and the user's text comes last."""
    rendered = messages(user("a"), assistant([USE]), user([text("And now?"), RESULT]), user("Go on."))

    assert [message["role"] for message in rendered] == ["user", "assistant", "tool", "user"]
    assert rendered[-1] == user("And now?\nGo on.")


def test_result_may_be_blocks_or_nothing() -> None:
    """A result's text is its blocks' text; a tool that said nothing answered with an empty text."""
    results = [{**RESULT, "content": [text("a"), text("b")]}, {"type": "tool_result", "tool_use_id": "toolu_9"}]
    rendered = messages(user("a"), assistant([USE]), user(results))

    assert [message["content"] for message in rendered[2:]] == ["a\nb", ""]
    assert "name" not in rendered[3], "nothing is known of a call that isn't there"


def test_failed_tool_is_told() -> None:
    """A result that is an error says so, once."""
    failed = [{**RESULT, "content": said, "is_error": True} for said in ("no network", "Error: no network")]
    rendered = messages(user("a"), assistant([USE]), user(failed))

    assert [message["content"] for message in rendered[2:]] == ["Error: no network"] * 2


def test_redacted_thinking_is_left_out() -> None:
    """What only another server can read is not shown to the model."""
    assert messages(user("a"), assistant([{"type": "redacted_thinking", "data": "x"}, text("b")]), user("c")) == [
        user("a"),
        assistant("b"),
        user("c"),
    ]


def test_answer_that_was_begun_is_continued() -> None:
    """A last message of the assistant's is the answer's beginning, and no new turn is opened."""
    begun = prompt(messages=[user("a"), assistant("The best is (")])
    whole = prompt(messages=[user("a"), assistant("b"), user("c")])

    assert begun.template_args["continue_final_message"] is True
    assert begun.template_args["add_generation_prompt"] is False
    assert set(whole.template_args) == {"enable_thinking"}


# -- what the worker makes of it ---------------------------------------------------------------------------


def cleaned(**fields: Any) -> ChatPrompt:
    """What is left of a request's prompt after the worker's own cleaning."""
    found = normalised(prompt(**fields))
    assert isinstance(found, ChatPrompt)
    return found


def test_agents_accounting_does_not_reach_the_template() -> None:
    """Two requests that differ only in the billing header and in where the cache mark stands are the same."""
    cache = {"cache_control": {"type": "ephemeral"}}
    first = cleaned(
        system=[text("x-anthropic-billing-header: cc_version=2.1.38; cch=00000;"), text("You are it.", **cache)],
        messages=[user([text("Hi", **cache)])],
        tools=[{**WEATHER, **cache}],
    )
    second = cleaned(
        system=[text("x-anthropic-billing-header: cc_version=2.1.38; cch=abcde;"), text("You are it.")],
        messages=[user("Hi")],
        tools=[WEATHER],
    )

    assert first == second
    assert flattened(first.messages[0]) == {"role": "system", "content": "You are it."}


def test_nothing_else_is_cleaned_away() -> None:
    """Without an agent's accounting, the worker's cleaning changes no text."""
    given: dict[str, Any] = {"system": [text("a"), text("b")], "messages": [user([text("c\n"), text(" d ")])]}

    assert cleaned(**given).messages == prompt(**given).messages
