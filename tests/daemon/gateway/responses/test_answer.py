"""The events of a Responses answer, and the document in which they end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stoker.daemon.dispatch import Output, PrefillProgress
from stoker.daemon.gateway.errors import ApiError
from stoker.daemon.gateway.responses.answer import Answer, new_response
from stoker.daemon.gateway.responses.request import read_responses
from stoker.ipc.messages import Delta, Finished, Likely, TokenLogprob, ToolCall
from tests.fakes.fake_dispatch import FINISHED, STARTED, USAGE, delta
from tests.fakes.response_events import checked, events, types

CUT = Finished(reason="length", usage=USAGE)
ITEM = ["output_item.added", "content_part.added"]
TEXT = [*ITEM, "output_text.delta", "output_text.done", "content_part.done", "output_item.done"]
THOUGHT = [*ITEM, "reasoning_text.delta", "reasoning_text.done", "content_part.done", "output_item.done"]
CALL = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]


def new_answer(**fields: Any) -> Answer:
    request = json.dumps({"model": "m", "input": "Hi", **fields}).encode()
    return Answer(new_response("m", read_responses(request).shown))


def told(*outputs: Output, answer: Answer | None = None) -> list[dict[str, Any]]:
    """The events that these outputs give."""
    answer = answer or new_answer()
    return events(b"".join(map(answer.output, outputs)))


def call(name: str, arguments: str = "{}") -> Delta:
    return Delta(target=1, tokens=(1, 2), channel="tool", calls=(ToolCall(name=name, arguments=arguments),))


def test_text_is_told_in_order() -> None:
    """Created, in progress, item, part, pieces, each closed again, and the whole at the end."""
    answer = new_answer()
    found = told(STARTED, PrefillProgress(1, 2), delta("Par"), delta("is"), FINISHED, answer=answer)
    response = checked(found[-1]["response"])

    assert types(found) == [
        "created",
        "in_progress",
        *ITEM,
        "output_text.delta",
        "output_text.delta",
        *TEXT[3:],
        "completed",
    ]
    assert [event["delta"] for event in found if event["type"].endswith(".delta")] == ["Par", "is"]
    assert answer.complete
    assert (response.output_text, response.status, response.error) == ("Paris", "completed", None)
    assert {event["response"]["id"] for event in found if "response" in event} == {response.id}
    assert found[0]["response"]["status"] == "in_progress"
    assert (found[2]["item"]["status"], found[2]["item"]["content"]) == ("in_progress", [])
    assert found[3]["part"]["text"] == ""


def test_usage_counts_cached_and_reasoning_tokens() -> None:
    """Prompt tokens that needed no prefill, and tokens of the answer that were thought, are told apart."""
    found = told(STARTED, delta("Hm", "reasoning", (1, 2)), delta("a"), FINISHED)
    usage = checked(found[-1]["response"]).usage

    assert usage is not None
    assert (usage.input_tokens, usage.input_tokens_details.cached_tokens) == (9, 7)
    assert (usage.output_tokens, usage.output_tokens_details.reasoning_tokens, usage.total_tokens) == (3, 2, 12)


def test_thought_text_and_calls_are_items_of_their_own() -> None:
    """Each kind is an item with its own id and place, and is closed before the next begins."""
    found = told(
        STARTED, delta("Hm.", "reasoning"), delta("I look."), call("look", '{"a":1}'), call("listen"), FINISHED
    )
    output = checked(found[-1]["response"]).output

    assert types(found) == ["created", "in_progress", *THOUGHT, *TEXT, *CALL, *CALL, "completed"]
    assert [item.type for item in output] == ["reasoning", "message", "function_call", "function_call"]
    assert [(item.id or "").split("_")[0] for item in output] == ["rs", "msg", "fc", "fc"]
    assert found[-1]["response"]["output"][2]["arguments"] == '{"a":1}'
    calls = found[-1]["response"]["output"][2:]
    assert len({each["call_id"] for each in calls}) == 2
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert done == found[-1]["response"]["output"]


def test_empty_lines_between_items_are_no_item() -> None:
    """White space alone opens neither a thought nor a message; before text it stays part of it."""
    found = told(STARTED, delta("\n", "reasoning"), delta("\n"), delta("\n"), call("look"), delta("\n"), FINISHED)
    kept = told(STARTED, delta("\n"), delta(" a"), FINISHED)

    assert types(found) == ["created", "in_progress", *CALL, "completed"]
    assert checked(kept[-1]["response"]).output_text == "\n a"


@pytest.mark.parametrize(
    ("outputs", "kinds"),
    [
        ((FINISHED,), ["message"]),
        ((delta("\n"), FINISHED), ["message"]),
        ((delta("Hm", "reasoning"), FINISHED), ["reasoning", "message"]),
        ((delta("Hm", "reasoning"), CUT), ["reasoning"]),
        ((call("look"), FINISHED), ["function_call"]),
    ],
)
def test_answer_without_text_has_an_empty_message(outputs: tuple[Output, ...], kinds: list[str]) -> None:
    """Clients find a message, unless the model called a function or was cut while it thought."""
    assert [item.type for item in checked(told(STARTED, *outputs)[-1]["response"]).output] == kinds


def test_cut_answer_is_incomplete() -> None:
    """At the bound the last event, the response and its last item say incomplete, and why."""
    found = told(STARTED, delta("Once"), Finished(reason="length", usage=USAGE, text=" upon"))
    response = checked(found[-1]["response"])

    assert found[-1]["type"] == "response.incomplete"
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert (response.output_text, found[-1]["response"]["output"][0]["status"]) == ("Once upon", "incomplete")


def test_given_up_answer_does_not_end_well() -> None:
    """An answer that the server gave up is never passed off as complete."""
    answer = new_answer()
    with pytest.raises(ApiError, match="gave up"):
        told(STARTED, Finished(reason="cancelled", usage=USAGE), answer=answer)

    assert not answer.complete


def test_failure_in_the_middle_is_told_with_what_there_was() -> None:
    """A response that was begun fails as a whole, with its error and the text so far."""
    answer = new_answer()
    begun = answer.output(STARTED) + answer.output(delta("Once"))
    found = events(begun + answer.failure(ApiError(500, "The worker died.", code="generation_failed")))
    response = checked(found[-1]["response"])

    assert found[-1]["type"] == "response.failed"
    assert response.error is not None
    assert (response.error.code, response.error.message) == ("server_error", "The worker died.")
    assert response.output_text == "Once"


def test_failure_before_the_beginning_is_an_error_event() -> None:
    """A client that has heard of no response yet hears of the error alone."""
    (event,) = events(new_answer().failure(ApiError(429, "Full.", code="queue_full", param="model")))

    assert (event["type"], event["code"], event["message"], event["param"]) == (
        "error",
        "queue_full",
        "Full.",
        "model",
    )


def test_logprobs_come_with_the_text() -> None:
    """Those of tokens without a text of their own wait for the next piece, and the end has all of them."""

    def token(data: bytes, *top: Likely) -> TokenLogprob:
        return TokenLogprob(token=1, bytes=tuple(data), logprob=-0.5, top=top)

    half = Delta(target=1, tokens=(1,), logprobs=(token(b"\xc3"),))
    rest = Delta(
        target=1,
        tokens=(2,),
        text="é",
        logprobs=(token(b"\xa9", Likely(token=3, bytes=(97,), logprob=-2.0)),),
    )
    found = told(STARTED, half, rest, FINISHED)
    (piece,) = [event for event in found if event["type"] == "response.output_text.delta"]
    whole = found[-1]["response"]["output"][0]["content"][0]["logprobs"]

    assert piece["logprobs"] == whole
    assert [(each["token"], each["bytes"]) for each in whole] == [("bytes:\\xc3", [0xC3]), ("bytes:\\xa9", [0xA9])]
    assert whole[1]["top_logprobs"] == [{"token": "a", "bytes": [97], "logprob": -2.0}]


def test_text_that_needs_escaping_comes_through() -> None:
    """Quotes, line ends and separators of lines don't break the prebuilt events."""
    text = 'é\n"\\\u2028</script>%d'

    assert checked(told(STARTED, delta(text), FINISHED)[-1]["response"]).output_text == text


def test_document_has_what_was_asked_for() -> None:
    """The response echoes the request, says that nothing is stored, and refers to nothing before it."""
    tool = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True}
    asked = {
        "instructions": "Be brief.",
        "max_output_tokens": 7,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "store": True,
        "temperature": 0.5,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
        "tools": [tool],
        "tool_choice": {"type": "function", "name": "look"},
        "user": "u",
    }
    document = told(STARTED, FINISHED, answer=new_answer(**asked))[-1]["response"]
    response = checked(document)

    assert document["store"] is False
    assert (response.previous_response_id, response.background, response.truncation) == (None, False, "disabled")
    assert (response.instructions, response.max_output_tokens, response.temperature) == ("Be brief.", 7, 0.5)
    assert (response.metadata, response.parallel_tool_calls, response.user) == ({"a": "b"}, False, "u")
    assert document["tools"][0]["name"] == document["tool_choice"]["name"] == "look"
    assert document["text"]["format"]["schema"] == {"type": "object"}
