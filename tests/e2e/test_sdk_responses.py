"""OpenAI's own SDK against the Responses API of a real daemon and worker, whose model says what is scripted."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.fakes.scripted_model import SCRIPTS, WEATHER

pytestmark = pytest.mark.slow

PLAIN = SCRIPTS["plain"]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
FLAT_WEATHER: Any = {"type": "function", **WEATHER["function"], "strict": False}  # type: ignore[dict-item]
TWO_CALLS = [("get_weather", {"city": "Rome"}), ("get_weather", {"days": 2, "city": "Oslo"})]


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_response_calls_tools(client: openai.OpenAI) -> None:
    """Calls are items of their own, whole as in the SDK's own accumulation of the stream."""
    whole = client.responses.create(model="default", input="two calls", tools=[FLAT_WEATHER])
    with client.responses.stream(model="default", input="two calls", tools=[FLAT_WEATHER]) as stream:
        streamed = stream.get_final_response()

    for response in (whole, streamed):
        found = [(item.name, json.loads(item.arguments)) for item in response.output if item.type == "function_call"]
        assert found == TWO_CALLS
        assert response.status == "completed"


def test_response_goes_on_after_a_tool(client: openai.OpenAI) -> None:
    """The answer's items and the tool's result are good input, and the model answers them."""
    first = client.responses.create(model="default", input="thought then call", tools=[FLAT_WEATHER])
    thought, call = first.output
    assert (thought.type, call.type) == ("reasoning", "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "plain"}  # type: ignore[union-attr]
    history: Any = [*user("thought then call"), *first.output, result]
    second = client.responses.create(model="default", input=history, tools=[FLAT_WEATHER])

    assert second.output_text == PLAIN


def test_response_tells_reasoning_apart(client: openai.OpenAI) -> None:
    """What the model thinks is an item before the message, told in deltas of its own, and counted."""
    events = list(client.responses.create(model="default", input="reasoned", stream=True))
    response = events[-1].response  # type: ignore[union-attr]
    thought = "".join(event.delta for event in events if event.type == "response.reasoning_text.delta")

    assert thought == "Is it warm? I look."
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output_text.strip() == "Yes, quite warm today."
    assert response.usage is not None
    assert response.usage.output_tokens_details.reasoning_tokens
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_response_ends_for_a_reason(client: openai.OpenAI) -> None:
    """At the bound a response is incomplete and says why; else it is completed."""
    ended = client.responses.create(model="default", input="plain")
    cut = client.responses.create(model="default", input="plain", max_output_tokens=2)

    assert (ended.status, ended.output_text) == ("completed", PLAIN)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


def test_response_answers_in_json(client: openai.OpenAI) -> None:
    """A response whose text is bound to a schema fits it."""
    form: Any = {"format": {"type": "json_schema", "name": "city", "schema": CITY, "strict": True}}

    assert json.loads(client.responses.create(model="default", input="json", text=form).output_text) == {
        "city": "Quito"
    }


def test_response_is_forced_to_call(client: openai.OpenAI) -> None:
    """A model that would just talk calls the tool where it must, and just talks where it may not."""
    schema = {"type": "object", "properties": {"far": {"type": "boolean"}}, "required": ["far"]}
    look: Any = {"type": "function", "name": "look", "parameters": {**schema, "additionalProperties": False}}
    asked: dict[str, Any] = {"model": "default", "input": "plain", "tools": [look], "max_output_tokens": 400}
    for choice in ("required", {"type": "function", "name": "look"}):
        fields: Any = {**asked, "tool_choice": choice}
        (item, *_) = client.responses.create(**fields).output
        assert item.type == "function_call"
        assert (item.name, set(json.loads(item.arguments))) == ("look", {"far"})

    free: Any = {**asked, "tool_choice": "none"}
    assert client.responses.create(**free).output_text == PLAIN


def test_response_tells_how_sure_it_was(client: openai.OpenAI) -> None:
    """Log probabilities that were asked for come with the text, for each of its tokens, with the likeliest others."""
    response = client.responses.create(
        model="default", input="plain", include=["message.output_text.logprobs"], top_logprobs=2
    )
    (item,) = response.output
    assert item.type == "message"
    (content,) = item.content
    assert content.type == "output_text"
    assert content.logprobs is not None

    assert "".join(each.token for each in content.logprobs).startswith(PLAIN)
    assert all(len(each.top_logprobs) == 2 for each in content.logprobs)
