"""Completions, whole and streamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from openai.types import Completion

from stoker.daemon.gateway.errors import ApiError
from stoker.daemon.gateway.merging import Indexed, Merged
from stoker.daemon.gateway.openai.answer import Label
from stoker.daemon.gateway.openai.completions import TextChunks, WholeText
from stoker.ipc.messages import Delta, Finished, Likely, TokenLogprob
from tests.fakes.fake_dispatch import FINISHED, STARTED, USAGE, delta
from tests.fakes.http import events_of
from tests.fakes.openai_requests import checked

LABEL = Label(id="cmpl-1", created=2, model="m", system_fingerprint="fp_3")
LENGTH = Finished(reason="length", usage=USAGE, text="!")


def whole(outputs: Sequence[Merged], choices: int = 1, n: int = 1, logprobs: int | None = None) -> dict[str, Any]:
    """The answer that outputs give, held against the SDK's type."""
    text = WholeText(LABEL, choices=choices, n=n, logprobs=logprobs)
    for output in outputs:
        text.add(output)
    assert text.complete
    answer: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(text.document()))
    checked(Completion, answer)
    return answer


def chunks_of(outputs: Sequence[Merged], choices: int = 1, n: int = 1, logprobs: int | None = None) -> list[Any]:
    """The chunks that outputs give, with the usage last, held against the SDK's type but for what it misses."""
    encoder = TextChunks(LABEL, include_usage=True, choices=choices, n=n, logprobs=logprobs)
    events = events_of(b"".join(encoder.output(output) for output in outputs))
    assert encoder.complete
    assert events.pop() == "[DONE]"
    return events


def step(text: str, data: bytes) -> Delta:
    """A step with log probabilities."""
    top = (Likely(token=1, bytes=tuple(data), logprob=-0.5),)
    return Delta(
        target=1, tokens=(1,), text=text, logprobs=(TokenLogprob(token=1, bytes=tuple(data), logprob=-0.5, top=top),)
    )


def test_whole_completion() -> None:
    """An answer is the text to the letter, with its reason and the usage."""
    answer = whole([STARTED, delta(" upon"), delta(" a time"), LENGTH])

    assert list(answer) == ["id", "object", "created", "model", "choices", "usage", "system_fingerprint"]
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [{"text": " upon a time!", "index": 0, "logprobs": None, "finish_reason": "length"}]
    assert answer["usage"]["total_tokens"] == 12


def test_streamed_completion() -> None:
    """Each piece is a chunk of the same type; the last has the reason, then come usage and end."""
    *chunks, usage = chunks_of([STARTED, delta(" upon"), delta(""), LENGTH])

    assert [chunk["choices"] for chunk in chunks] == [
        [{"index": 0, "text": " upon", "logprobs": None, "finish_reason": None}],
        [{"index": 0, "text": "!", "logprobs": None, "finish_reason": "length"}],
    ]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert [chunk["usage"] for chunk in chunks] == [None, None]
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 12)
    checked(Completion, chunks[-1])
    checked(Completion, usage)


def test_every_prompt_has_its_answers() -> None:
    """Two prompts with one answer each are two choices, and both prompts count."""
    outputs = [Indexed(1, delta("b")), Indexed(0, delta("a")), Indexed(0, FINISHED), Indexed(1, FINISHED)]
    answer, chunks = whole(outputs, choices=2), chunks_of(outputs, choices=2)

    assert [choice["text"] for choice in answer["choices"]] == ["a", "b"]
    assert answer["usage"]["prompt_tokens"] == 2 * USAGE.prompt_tokens
    assert [chunk["choices"][0]["index"] for chunk in chunks[:-1]] == [1, 0, 0, 1]
    assert chunks[-1]["usage"] == answer["usage"]


def test_log_probabilities_have_the_old_shape() -> None:
    """Offsets count on from chunk to chunk, and whole answers have all in one."""
    steps = [step("", b"\xc3"), step("é", b"\xa9"), step("!", b"!")]
    *chunks, _, _ = chunks_of([*steps, FINISHED], logprobs=1)
    logprobs = whole([*steps, FINISHED], logprobs=1)["choices"][0]["logprobs"]

    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in chunks] == [[0], [0], [1]]
    assert logprobs["text_offset"] == [0, 0, 1]
    assert logprobs["tokens"] == ["bytes:\\xc3", "bytes:\\xa9", "!"]
    assert logprobs["token_logprobs"] == [-0.5] * 3
    assert logprobs["top_logprobs"][2] == {"!": -0.5}


def test_given_up_completion_is_no_answer() -> None:
    """A completion that the server gave up is never passed off as complete."""
    given_up = Finished(reason="cancelled", usage=USAGE)
    with pytest.raises(ApiError, match="gave up"):
        whole([given_up])
    with pytest.raises(ApiError, match="gave up"):
        TextChunks(LABEL, include_usage=False, choices=1, n=1, logprobs=None).output(given_up)
