"""The bytes of a message, and that a stream tells the same message as a whole answer."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from stoker.daemon.dispatch import Output, PrefillProgress, Waiting
from stoker.daemon.gateway.anthropic.answer import Events, Gathering, Label
from stoker.daemon.gateway.errors import ApiError
from stoker.ipc.messages import Delta, Finished, ToolCall, Usage
from tests.fakes.anthropic_client import events_of
from tests.fakes.fake_dispatch import FINISHED, STARTED, USAGE, delta

LABEL = Label(id="msg_1", model='a "quoted" name', request_id="req_1")
CALL = ToolCall(name="get_weather", arguments='{"city": "Paris"}')


def calling(*calls: ToolCall, text: str = "") -> Delta:
    """A step that completed calls."""
    return Delta(target=1, tokens=(1,), text=text, calls=calls)


def streamed(*outputs: Output, label: Label = LABEL) -> list[dict[str, Any]]:
    """The events of an answer."""
    events = Events(label)
    return events_of(b"".join(events.output(output) for output in outputs))


def told(*outputs: Output) -> list[tuple[Any, ...]]:
    """The events without what all answers share: type, index, and what is new."""
    return [
        (event["type"], *(event[key] for key in ("index", "content_block", "delta") if key in event))
        for event in streamed(*outputs)
    ]


def whole(*outputs: Output, label: Label = LABEL) -> dict[str, Any]:
    """The answer as one document."""
    gathering = Gathering(label)
    for output in outputs:
        if isinstance(output, Delta):
            gathering.add(output)
        elif isinstance(output, Finished):
            return dict(json.loads(msgspec.json.encode(gathering.message(output))))
    raise AssertionError("no end")


# -- streams -----------------------------------------------------------------------------------------------


def test_text_is_one_block() -> None:
    """An answer of text has the sequence of events that Anthropic's reference tells."""
    assert told(STARTED, delta("Hel"), delta("lo"), FINISHED) == [
        ("message_start",),
        ("content_block_start", 0, {"type": "text", "text": "", "citations": None}),
        ("content_block_delta", 0, {"type": "text_delta", "text": "Hel"}),
        ("content_block_delta", 0, {"type": "text_delta", "text": "lo"}),
        ("content_block_stop", 0),
        (
            "message_delta",
            {"stop_reason": "end_turn", "stop_sequence": None, "stop_details": None, "container": None},
        ),
        ("message_stop",),
    ]


def test_blocks_follow_one_another() -> None:
    """Thinking is signed and ends before the text begins; each call is a block of its own."""
    events = told(STARTED, delta("hm", "reasoning"), delta("So:"), calling(CALL, CALL), FINISHED)
    starts = [event[2]["type"] for event in events if event[0] == "content_block_start"]
    deltas = [(event[1], event[2]["type"]) for event in events if event[0] == "content_block_delta"]
    order = [(event[0].removeprefix("content_block_"), event[1]) for event in events[1:-2]]

    assert starts == ["thinking", "text", "tool_use", "tool_use"]
    assert deltas == [
        (0, "thinking_delta"),
        (0, "signature_delta"),
        (1, "text_delta"),
        (2, "input_json_delta"),
        (3, "input_json_delta"),
    ]
    assert [index for kind, index in order if kind != "delta"] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_white_space_before_a_call_is_no_block() -> None:
    """A newline between thinking and a call is not shown; before more text it is part of the text."""
    silent = told(STARTED, delta("hm", "reasoning"), delta("\n"), delta("\n"), calling(CALL), FINISHED)
    spoken = told(STARTED, delta("\n"), delta("\n"), delta("Hi"), FINISHED)

    assert [event[2]["type"] for event in silent if event[0] == "content_block_start"] == ["thinking", "tool_use"]
    assert [event[2]["text"] for event in spoken if event[0] == "content_block_delta"] == ["\n\nHi"]


def test_silence_is_a_message_without_blocks() -> None:
    """An answer in which nothing was said begins and ends, with nothing between."""
    assert [event["type"] for event in streamed(STARTED, FINISHED)] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]
    assert whole(STARTED, FINISHED)["content"] == []


def test_texts_are_whole_after_escaping() -> None:
    """Names and texts that need escaping come through as they are."""
    odd = 'é\n"\\\u2028</script>\x00'
    events = streamed(
        STARTED, delta(odd, "reasoning"), delta(odd), calling(ToolCall(name=odd, arguments="")), FINISHED
    )

    assert events[0]["message"]["model"] == 'a "quoted" name'
    assert [
        event["delta"][key] for event in events for key in ("text", "thinking") if key in event.get("delta", {})
    ] == [
        odd,
        odd,
    ]
    assert [event["content_block"].get("name") for event in events if "content_block" in event] == [None, None, odd]


def test_answer_begins_when_it_is_admitted() -> None:
    """Waiting gives no event: the first one tells the prompt's tokens, which are known only then."""
    events = Events(LABEL)

    assert events.output(Waiting("loading", 3)) == b""
    (start,) = events_of(events.output(STARTED))
    assert events.output(PrefillProgress(8, 9)) == events.output(STARTED) == b""
    assert start["message"]["usage"]["input_tokens"] == 2
    assert start["message"]["usage"]["cache_read_input_tokens"] == 7
    assert (start["message"]["content"], start["message"]["stop_reason"]) == ([], None)


def test_silence_is_broken_by_pings() -> None:
    """A ping is an event for clients, with a comment for people who look at the wire."""
    assert Events(LABEL).alive("prefill 5/9") == b': prefill 5/9\nevent: ping\ndata: {"type":"ping"}\n\n'


def test_failure_is_an_error_event() -> None:
    """What goes wrong in the middle is told in Anthropic's shape, with the request's id."""
    (event,) = events_of(Events(LABEL).failure(ApiError(503, "no worker")))

    assert event == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "no worker"},
        "request_id": "req_1",
    }


def test_stream_is_complete_only_with_its_end() -> None:
    """An encoder knows whether its answer was told to the end."""
    events = Events(LABEL)
    events.output(delta("Hi"))
    assert events.complete is False
    events.output(FINISHED)
    assert events.complete is True


# -- ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finished", "calls", "reason", "stop"),
    [
        (FINISHED, (), "end_turn", None),
        (Finished(reason="length", usage=USAGE), (), "max_tokens", None),
        (Finished(reason="length", usage=USAGE), (CALL,), "max_tokens", None),
        (Finished(reason="stop", usage=USAGE, stop="END"), (), "stop_sequence", "END"),
        (Finished(reason="stop", usage=USAGE, stop="END"), (CALL,), "stop_sequence", "END"),
        (FINISHED, (CALL,), "tool_use", None),
    ],
)
def test_end_has_its_reason(finished: Finished, calls: tuple[ToolCall, ...], reason: str, stop: str | None) -> None:
    """Why an answer ended is told in Anthropic's words, the same in a stream and whole."""
    outputs = (STARTED, delta("Hi"), calling(*calls), finished)
    document = whole(*outputs)
    last = streamed(*outputs)[-2]

    assert (document["stop_reason"], document["stop_sequence"]) == (reason, stop)
    assert (last["delta"]["stop_reason"], last["delta"]["stop_sequence"]) == (reason, stop)


def test_given_up_answer_has_no_end() -> None:
    """An answer that the server gave up is never passed off as complete."""
    cancelled = Finished(reason="cancelled", usage=USAGE)
    with pytest.raises(ApiError, match="gave up"):
        streamed(STARTED, delta("Hi"), cancelled)
    with pytest.raises(ApiError, match="gave up"):
        whole(STARTED, delta("Hi"), cancelled)


def test_held_back_text_is_told() -> None:
    """What the worker held back until the end is part of the answer."""
    outputs = (STARTED, delta("H"), Finished(reason="stop", usage=USAGE, text="i"))

    assert whole(*outputs)["content"][0]["text"] == "Hi"
    assert [
        event["delta"]["text"] for event in streamed(*outputs) if event.get("index") == 0 and "delta" in event
    ] == [
        "H",
        "i",
    ]


def test_usage_adds_up_to_the_prompt() -> None:
    """What was read from the cache and what was not is the prompt; thinking is counted within the answer."""
    outputs = (STARTED, delta("hm", "reasoning", tokens=(1, 2)), delta("Hi"), FINISHED)
    counts = {
        "input_tokens": 2,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 7,
        "output_tokens": 3,
        "output_tokens_details": {"thinking_tokens": 2},
        "server_tool_use": None,
    }

    assert whole(*outputs)["usage"] == {**counts, "cache_creation": None, "service_tier": "standard"}
    assert streamed(*outputs)[-2]["usage"] == counts


# -- what is not told --------------------------------------------------------------------------------------


def test_omitted_thinking_leaves_an_empty_block() -> None:
    """A client that wants no thinking is told that there was some, and what was said is whole."""
    label = msgspec.structs.replace(LABEL, show_thinking=False)
    outputs = (STARTED, delta("secret", "reasoning"), delta(" plan", "reasoning"), delta("Hi"), FINISHED)
    thought, said = whole(*outputs, label=label)["content"]
    events = streamed(*outputs, label=label)

    assert (thought["thinking"], said["text"]) == ("", "Hi")
    assert [event["delta"]["type"] for event in events if event["type"] == "content_block_delta"] == [
        "signature_delta",
        "text_delta",
    ]


def test_warming_answers_with_nothing() -> None:
    """A request for no tokens gets a message without content, that ended for its length."""
    label = msgspec.structs.replace(LABEL, only_warm=True)
    outputs = (STARTED, delta("H"), Finished(reason="stop", usage=USAGE, text="i"))
    document = whole(*outputs, label=label)
    events = streamed(*outputs, label=label)

    assert (document["content"], document["stop_reason"], document["usage"]["output_tokens"]) == ([], "max_tokens", 0)
    assert [event["type"] for event in events] == ["message_start", "message_delta", "message_stop"]
    assert events[1]["delta"]["stop_reason"] == "max_tokens"
    assert events[1]["usage"]["output_tokens"] == 0


# -- any answer --------------------------------------------------------------------------------------------

texts = st.one_of(st.sampled_from(["", " ", "\n", "Hi", "\u2028", "\x1f"]), st.text(max_size=8))
objects = st.dictionaries(st.text(max_size=4), st.one_of(st.integers(), st.text(max_size=4), st.none()), max_size=3)
calls = st.builds(lambda name, value: ToolCall(name=name, arguments=json.dumps(value)), st.text(max_size=5), objects)
deltas = st.builds(
    lambda text, channel, calls: Delta(target=1, tokens=(1,), text=text, channel=channel, calls=tuple(calls)),
    texts,
    st.sampled_from(["normal", "reasoning", "tool"]),
    st.lists(calls, max_size=2),
)
ends = st.builds(
    lambda reason, stop, text, channel: Finished(
        reason=reason,
        stop=stop,
        text=text,
        channel=channel,
        usage=Usage(prompt_tokens=9, completion_tokens=5, cached_tokens=7),
    ),
    st.sampled_from(["stop", "length"]),
    st.sampled_from([None, "END"]),
    texts,
    st.sampled_from(["normal", "reasoning", "tool"]),
)
event_types: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)


def accumulated(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What Anthropic's client makes of a stream, each event checked against its type."""
    message: Any = None
    buffers: dict[int, bytes] = {}
    for event in events:
        message = accumulate_event(
            event=event_types.validate_python(event), current_snapshot=message, json_bufs=buffers
        )
    return dict(message.to_dict(mode="json"))


def without_ids(document: dict[str, Any]) -> dict[str, Any]:
    """An answer without ids, which are made anew, and without nulls, which a client may add or leave out."""
    blocks = [{key: value for key, value in block.items() if value is not None} for block in document["content"]]
    for block in blocks:
        block.pop("id", None)
    counts = {key: value for key, value in document["usage"].items() if value is not None}
    return {key: value for key, value in document.items() if value is not None} | {"content": blocks, "usage": counts}


def require_sequence(events: list[dict[str, Any]]) -> None:
    """Blocks are numbered from 0, one is open at a time, and each delta belongs to the open one."""
    kinds = [event["type"] for event in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    blocks = events[1:-2]
    opened = [event["index"] for event in blocks if event["type"] == "content_block_start"]
    assert opened == list(range(len(opened)))
    current: int | None = None
    for event in blocks:
        if event["type"] == "content_block_start":
            assert current is None
            current = event["index"]
        assert event["index"] == current
        if event["type"] == "content_block_stop":
            current = None
    assert current is None


@given(st.lists(deltas, max_size=12), ends, st.booleans(), st.booleans())
def test_stream_tells_what_the_whole_answer_says(
    said: list[Delta], end: Finished, show_thinking: bool, only_warm: bool
) -> None:
    """Whatever a worker emits, the stream is a valid sequence from which the client makes the whole answer."""
    label = msgspec.structs.replace(LABEL, show_thinking=show_thinking, only_warm=only_warm)
    outputs: tuple[Output, ...] = (STARTED, *said, end)
    events = streamed(*outputs, label=label)

    require_sequence(events)
    assert without_ids(accumulated(events)) == without_ids(whole(*outputs, label=label))
