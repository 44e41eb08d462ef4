"""The bytes of chunks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stoker.daemon.gateway.errors import ApiError
from stoker.daemon.gateway.openai_answer import Chunks, Label, Tally, new_label
from stoker.ipc.messages import Finished
from tests.fakes.fake_dispatch import FINISHED, USAGE

LABEL = Label(id="chatcmpl-1", created=2, model='a "quoted" name', system_fingerprint="fp_3")


def decoded(events: bytes) -> list[Any]:
    """The events' JSON."""
    return [json.loads(event.removeprefix("data: ")) for event in events.decode().strip().split("\n\n")]


def test_prebuilt_parts_make_valid_chunks() -> None:
    """Model names and texts that need escaping come through whole."""
    (chunk,) = decoded(Chunks(LABEL, include_usage=False).text('é\n"\\\u2028</script>', "normal"))

    assert chunk == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 2,
        "model": 'a "quoted" name',
        "system_fingerprint": "fp_3",
        "choices": [
            {
                "index": 0,
                "delta": {"content": 'é\n"\\\u2028</script>'},
                "logprobs": None,
                "finish_reason": None,
            }
        ],
    }


def test_no_text_is_no_chunk() -> None:
    """Half a character is not shown as an empty piece."""
    assert Chunks(LABEL, include_usage=False).text("", "normal") == b""


def test_chunks_announce_usage_when_it_was_asked_for() -> None:
    """With `include_usage` every chunk has `usage`, null but in the last one."""
    chunks = Chunks(LABEL, include_usage=True)
    events = chunks.first() + chunks.text("a", "tool") + chunks.last(FINISHED, Tally())

    *before, last = decoded(events.removesuffix(b"data: [DONE]\n\n"))
    assert [chunk["usage"] for chunk in before] == [None, None, None]
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens"] == 9


def test_given_up_answer_has_no_last_chunk() -> None:
    """An answer that the server gave up is never passed off as complete."""
    with pytest.raises(ApiError, match="gave up"):
        Chunks(LABEL, include_usage=False).last(Finished(reason="cancelled", usage=USAGE), Tally())


def test_answers_have_ids_of_their_own() -> None:
    """Two answers of one model differ by id and share the fingerprint; another model has another."""
    first, second, other = new_label("a", "m"), new_label("a", "m"), new_label("a", "n")

    assert first.id != second.id
    assert first.system_fingerprint == second.system_fingerprint != other.system_fingerprint
