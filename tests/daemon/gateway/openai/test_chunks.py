"""The bytes of a streamed chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from openai.types.chat import ChatCompletionChunk

from stoker.daemon.dispatch import PrefillProgress, Waiting
from stoker.daemon.gateway.errors import ApiError
from stoker.daemon.gateway.merging import Indexed, Merged
from stoker.daemon.gateway.openai.answer import Label
from stoker.daemon.gateway.openai.chunks import ChatChunks
from stoker.ipc.messages import Delta, Finished, TokenLogprob, ToolCall
from tests.fakes.fake_dispatch import FINISHED, STARTED, USAGE, delta
from tests.fakes.http import events_of
from tests.fakes.openai_requests import checked

LABEL = Label(id="chatcmpl-1", created=2, model='a "quoted" name', system_fingerprint="fp_3")
ADD = ToolCall(name="add", arguments='{"a": "é"}')
NOW = ToolCall(name="now", arguments="{}")
OPENING = {"role": "assistant", "content": "", "refusal": None}
OPENING_WITH_TOOLS = {"role": "assistant", "content": None, "refusal": None}


def chunks_of(
    outputs: Sequence[Merged], *, include_usage: bool = False, choices: int = 1, tools: bool = False
) -> list[Any]:
    """The chunks that outputs give, held against the SDK's type; the end is taken off."""
    encoder = ChatChunks(LABEL, include_usage=include_usage, choices=choices, tools=tools)
    events = events_of(b"".join(encoder.output(output) for output in outputs))
    assert encoder.complete
    assert events.pop() == "[DONE]"
    for event in events:
        checked(ChatCompletionChunk, event)
    return events


def deltas_of(*outputs: Merged, tools: bool = False) -> list[tuple[Any, Any]]:
    """Each chunk's delta and reason."""
    choices = [chunk["choices"][0] for chunk in chunks_of(outputs, tools=tools)]
    return [(choice["delta"], choice["finish_reason"]) for choice in choices]


def test_prebuilt_parts_make_valid_chunks() -> None:
    """Model names and texts that need escaping come through whole."""
    text = 'é\n"\\\u2028</script>'
    _, chunk, _ = chunks_of([delta(text), FINISHED])

    assert chunk == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 2,
        "model": 'a "quoted" name',
        "system_fingerprint": "fp_3",
        "choices": [{"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}],
    }


def test_role_comes_with_the_admission() -> None:
    """Waiting gives nothing; the role comes once, as soon as a worker has taken the request."""
    encoder = ChatChunks(LABEL, include_usage=False)

    assert encoder.output(Waiting("loading", 0)) == b""
    assert b'"role":"assistant"' in encoder.output(STARTED)
    assert encoder.output(PrefillProgress(1, 2)) == b""
    assert b'"role"' not in encoder.output(delta("a"))


def test_no_text_is_no_chunk() -> None:
    """Half a character is not shown as an empty piece."""
    assert deltas_of(STARTED, delta(""), delta("", "reasoning"), FINISHED) == [(OPENING, None), ({}, "stop")]


def test_usage_comes_in_a_chunk_of_its_own() -> None:
    """With `include_usage` every chunk has `usage`, null but in the last one, which has no choices."""
    *before, last = chunks_of([STARTED, delta("hm", "reasoning"), delta("a"), FINISHED], include_usage=True)

    assert [chunk["usage"] for chunk in before] == [None] * 4
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens"] == 9
    assert last["usage"]["completion_tokens_details"] == {"reasoning_tokens": 1}


def test_given_up_answer_has_no_last_chunk() -> None:
    """An answer that the server gave up is never passed off as complete."""
    encoder = ChatChunks(LABEL, include_usage=False)
    with pytest.raises(ApiError, match="gave up"):
        encoder.output(Finished(reason="cancelled", usage=USAGE))

    assert not encoder.complete


def test_calls_are_streamed_name_first() -> None:
    """Each call opens with its index, an id and the name; the arguments follow."""
    script = (STARTED, delta("", "tool"), Delta(target=1, tokens=(1,), calls=(ADD, NOW)), FINISHED)
    first, *calls, last = deltas_of(*script, tools=True)
    parts = [given["tool_calls"][0] for given, _ in calls]

    assert first == (OPENING_WITH_TOOLS, None)
    assert [part["index"] for part in parts] == [0, 0, 1, 1]
    assert [part["function"] for part in parts] == [
        {"name": "add", "arguments": ""},
        {"arguments": ADD.arguments},
        {"name": "now", "arguments": ""},
        {"arguments": "{}"},
    ]
    assert [part.get("type") for part in parts] == ["function", None, "function", None]
    assert parts[0]["id"] != parts[2]["id"]
    assert "id" not in parts[1]
    assert last == ({}, "tool_calls")


def test_later_calls_count_on() -> None:
    """A call in a later step has the next index."""
    steps = [Delta(target=1, tokens=(1,), calls=(call,)) for call in (ADD, NOW)]
    _, *calls, _ = deltas_of(*steps, FINISHED, tools=True)

    assert [given["tool_calls"][0]["index"] for given, _ in calls] == [0, 0, 1, 1]


def test_text_and_reason_beside_tools() -> None:
    """An answer that could have called tools and did not is a text like any other, also an empty one."""
    assert deltas_of(STARTED, delta("Hi"), FINISHED, tools=True) == [
        (OPENING_WITH_TOOLS, None),
        ({"content": "Hi"}, None),
        ({}, "stop"),
    ]
    assert deltas_of(STARTED, FINISHED, tools=True)[1:] == [({"content": ""}, "stop")]
    assert deltas_of(STARTED, FINISHED) == [(OPENING, None), ({}, "stop")]


def test_call_that_never_became_whole_is_text() -> None:
    """What the worker gives as text is shown, also where it looks like half a call."""
    cut = Finished(reason="length", usage=USAGE, text='{"na', channel="tool")
    shown = deltas_of(STARTED, delta("<tool>", "tool"), cut, tools=True)

    assert [given for given, _ in shown[1:]] == [{"content": "<tool>"}, {"content": '{"na'}, {}]
    assert shown[-1][1] == "length"


def test_log_probabilities_come_with_their_text() -> None:
    """Also where a token gives no text yet: none of them is lost."""
    chosen = TokenLogprob(token=1, bytes=(72,), logprob=-1.0)
    steps = [Delta(target=1, tokens=(1,), text=text, logprobs=(chosen,)) for text in ("", "HH")]
    _, first, second, _ = chunks_of([STARTED, *steps, FINISHED])

    assert [each["choices"][0]["delta"] for each in (first, second)] == [{"content": ""}, {"content": "HH"}]
    assert first["choices"][0]["logprobs"] == {
        "content": [{"token": "H", "logprob": -1.0, "bytes": [72], "top_logprobs": []}],
        "refusal": None,
    }


def test_choices_share_a_stream() -> None:
    """Each choice has its role, its pieces and its reason under its index; there is one usage and one end."""
    outputs: list[Merged] = [
        Indexed(0, STARTED),
        Indexed(0, delta("a")),
        PrefillProgress(1, 2),
        Indexed(1, STARTED),
        Indexed(0, FINISHED),
        Indexed(1, delta("b")),
        Indexed(1, FINISHED),
    ]
    *chunks, usage = chunks_of(outputs, include_usage=True, choices=2)
    choices = [chunk["choices"][0] for chunk in chunks]

    assert [choice["index"] for choice in choices] == [0, 0, 1, 0, 1, 1]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop", "stop"]
    assert sum("role" in choice["delta"] for choice in choices) == 2
    assert usage["usage"]["completion_tokens"] == 2 * USAGE.completion_tokens
