"""OpenAI's and Anthropic's own SDKs against a real daemon with a real worker, whose model says what is scripted."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest

from tests.fakes.anthropic_client import WEATHER as ANTHROPIC_WEATHER
from tests.fakes.scripted_model import SCRIPTS, WEATHER

pytestmark = pytest.mark.slow

PLAIN = SCRIPTS["plain"]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TWO_CALLS = [("get_weather", {"city": "Rome"}), ("get_weather", {"days": 2, "city": "Oslo"})]


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


# -- OpenAI: chat completions --------------------------------------------------------------------------------


def chat(client: openai.OpenAI, script: str, **options: Any) -> Any:
    """The one choice of an answer."""
    return client.chat.completions.create(model="default", messages=user(script), **options).choices[0]


def calls_of(message: Any) -> list[tuple[str, Any]]:
    return [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]


def test_chat_calls_a_tool(client: openai.OpenAI) -> None:
    """A call arrives as a call with its arguments, and the reason is that."""
    choice = chat(client, "one call", tools=[WEATHER])

    assert choice.finish_reason == "tool_calls"
    assert calls_of(choice.message) == [("get_weather", {"city": "Paris"})]
    assert not choice.message.content


def test_chat_calls_two_tools_or_one(client: openai.OpenAI) -> None:
    """Two calls of one answer have ids of their own; where they may not be parallel there is one."""
    two = chat(client, "two calls", tools=[WEATHER]).message
    one = chat(client, "two calls", tools=[WEATHER], parallel_tool_calls=False).message

    assert calls_of(two) == TWO_CALLS
    assert two.tool_calls[0].id != two.tool_calls[1].id
    assert calls_of(one) == TWO_CALLS[:1]


def test_chat_streams_calls(client: openai.OpenAI) -> None:
    """What the SDK gathers from a stream is the whole answer: text, then both calls, then the reason."""
    for script in ("two calls", "text then call"):
        with client.chat.completions.stream(model="default", messages=user(script), tools=[WEATHER]) as stream:  # type: ignore[list-item]
            streamed = stream.get_final_completion().choices[0]
        whole = chat(client, script, tools=[WEATHER])

        assert calls_of(streamed.message) == calls_of(whole.message)
        assert (streamed.message.content or "") == (whole.message.content or "")
        assert streamed.finish_reason == whole.finish_reason == "tool_calls"


def test_chat_goes_on_after_a_tool(client: openai.OpenAI) -> None:
    """The answer's message and the tool's result are good history, and the model answers them."""
    message = chat(client, "one call", tools=[WEATHER]).message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "plain"}
    history = [*user("one call"), message, result]
    answer = client.chat.completions.create(model="default", messages=history, tools=[WEATHER])  # type: ignore[list-item]

    assert answer.choices[0].message.content == PLAIN


def test_chat_tells_reasoning_apart(client: openai.OpenAI) -> None:
    """What the model thinks is `reasoning_content`, whole and streamed, and is counted."""
    choice = chat(client, "reasoned")
    stream = client.chat.completions.create(
        model="default", messages=user("reasoned"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    thought = "".join(
        (chunk.choices[0].delta.model_extra or {}).get("reasoning_content") or "" for chunk in chunks if chunk.choices
    )

    assert choice.message.model_extra["reasoning_content"] == thought == "Is it warm? I look."
    assert choice.message.content.strip() == "Yes, quite warm today."
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens_details is not None
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens


def test_chat_ends_for_a_reason(client: openai.OpenAI) -> None:
    """At a stop string, at the bound, or where the model ends: each is told, and text stops there."""
    ended = chat(client, "plain")
    stopped = chat(client, "plain", stop=["it stays"])
    cut = chat(client, "plain", max_completion_tokens=2)

    assert (ended.finish_reason, ended.message.content) == ("stop", PLAIN)
    assert (stopped.finish_reason, stopped.message.content) == ("stop", "The fire is warm, and ")
    assert cut.finish_reason == "length"
    assert PLAIN.startswith(cut.message.content)


def test_chat_answers_in_json(client: openai.OpenAI) -> None:
    """An answer that is bound to a schema fits it."""
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}

    assert json.loads(chat(client, "json", response_format=form).message.content) == {"city": "Quito"}


def test_chat_answers_in_json_beside_tools(client: openai.OpenAI) -> None:
    """Beside tools, too, an answer that is bound to a schema and calls none of them fits it."""
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
    written = chat(client, "json", response_format=form, tools=[WEATHER])

    assert (written.finish_reason, json.loads(written.message.content)) == ("stop", {"city": "Quito"})


# -- OpenAI: completions -------------------------------------------------------------------------------------


def test_completion_goes_on_with_a_text(client: openai.OpenAI) -> None:
    """A text is continued to the letter, whole and streamed, and calls in it are text."""
    whole = client.completions.create(model="default", prompt="<|script:plain|>", max_tokens=50)
    stream = client.completions.create(model="default", prompt="<|script:plain|>", max_tokens=50, stream=True)
    call = client.completions.create(model="default", prompt="<|script:one call|>", max_tokens=50)

    assert whole.choices[0].text == "".join(chunk.choices[0].text for chunk in stream) == PLAIN
    assert whole.choices[0].finish_reason == "stop"
    assert call.choices[0].text == SCRIPTS["one call"]


def test_completion_ends_for_a_reason(client: openai.OpenAI) -> None:
    """A stop string and the bound end a completion as they end a chat."""
    stopped = client.completions.create(model="default", prompt="<|script:plain|>", stop="it stays").choices[0]
    cut = client.completions.create(model="default", prompt="<|script:plain|>", max_tokens=2).choices[0]

    assert (stopped.finish_reason, stopped.text) == ("stop", "The fire is warm, and ")
    assert cut.finish_reason == "length"


# -- Anthropic: messages -------------------------------------------------------------------------------------


def message(claude: anthropic.Anthropic, script: str, **options: Any) -> Any:
    fields: Any = {"model": "default", "max_tokens": 200, **options}
    return claude.messages.create(messages=user(script), **fields)


def used(answer: Any) -> list[tuple[str, Any]]:
    return [(block.name, block.input) for block in answer.content if block.type == "tool_use"]


def test_message_calls_tools(claude: anthropic.Anthropic) -> None:
    """Calls are `tool_use` blocks, and may be limited to one."""
    two = message(claude, "two calls", tools=[ANTHROPIC_WEATHER])
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    one = message(claude, "two calls", tools=[ANTHROPIC_WEATHER], tool_choice=choice)

    assert (two.stop_reason, used(two)) == ("tool_use", TWO_CALLS)
    assert (one.stop_reason, used(one)) == ("tool_use", TWO_CALLS[:1])


def test_message_streams_calls(claude: anthropic.Anthropic) -> None:
    """What the SDK gathers from a stream is the whole answer."""
    for script in ("two calls", "text then call", "thought then call"):
        with claude.messages.stream(
            model="default",
            messages=user(script),
            max_tokens=200,
            tools=[ANTHROPIC_WEATHER],  # type: ignore[list-item]
        ) as stream:
            streamed = stream.get_final_message()
        whole = message(claude, script, tools=[ANTHROPIC_WEATHER])

        assert used(streamed) == used(whole)
        assert [block.type for block in streamed.content] == [block.type for block in whole.content]
        assert streamed.stop_reason == "tool_use"


def test_message_goes_on_after_a_tool(claude: anthropic.Anthropic) -> None:
    """The answer's blocks and the tool's result are good history, and the model answers them."""
    first = message(claude, "one call", tools=[ANTHROPIC_WEATHER])
    result = {"type": "tool_result", "tool_use_id": first.content[0].id, "content": "plain"}
    history: Any = [
        *user("one call"),
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    second = claude.messages.create(model="default", messages=history, max_tokens=50, tools=[ANTHROPIC_WEATHER])  # type: ignore[list-item]

    assert second.content[0].text == PLAIN  # type: ignore[union-attr]


def test_message_thinks(claude: anthropic.Anthropic) -> None:
    """Thinking that was asked for is a block of its own, before the text."""
    answer = message(claude, "reasoned", max_tokens=2000, thinking={"type": "enabled", "budget_tokens": 1024})

    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[0].thinking == "Is it warm? I look."
    assert answer.content[1].text.strip() == "Yes, quite warm today."


def test_message_ends_for_a_reason(claude: anthropic.Anthropic) -> None:
    """At a stop sequence, which is told, at the bound, or where the model ends."""
    ended = message(claude, "plain")
    stopped = message(claude, "plain", stop_sequences=["it stays"])
    cut = message(claude, "plain", max_tokens=2)

    assert (ended.stop_reason, ended.content[0].text) == ("end_turn", PLAIN)
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "it stays")
    assert cut.stop_reason == "max_tokens"


def test_message_is_counted_before_it_is_sent(claude: anthropic.Anthropic) -> None:
    """`count_tokens` says what the usage of the answer will say."""
    counted = claude.messages.count_tokens(
        model="default",
        messages=user("plain"),
        system="Be warm.",
        tools=[ANTHROPIC_WEATHER],  # type: ignore[list-item]
    )
    usage = message(claude, "plain", system="Be warm.", tools=[ANTHROPIC_WEATHER]).usage

    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens + (
        usage.cache_creation_input_tokens or 0
    )


# -- errors --------------------------------------------------------------------------------------------------


def test_errors_are_the_sdks_own(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    """An unknown model and a bad field raise what each vendor's SDK has for that."""
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="gpt-9", input="plain")
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(model="default", input="plain", previous_response_id="resp_1")
    with pytest.raises(openai.NotFoundError, match="nothing is stored"):
        client.responses.retrieve("resp_1")
    with pytest.raises(anthropic.NotFoundError):
        message(claude, "plain", model="claude-9")
