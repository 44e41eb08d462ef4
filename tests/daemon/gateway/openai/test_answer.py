"""Whole answers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletion

from stoker.daemon.gateway.errors import ApiError
from stoker.daemon.gateway.merging import Indexed, Merged
from stoker.daemon.gateway.openai.answer import Label, WholeChat, finish_reason, new_label, total_usage
from stoker.ipc.messages import Delta, Finished, TokenLogprob, ToolCall, Usage
from tests.fakes.fake_dispatch import FINISHED, STARTED, USAGE, delta
from tests.fakes.openai_requests import checked

LABEL = Label(id="chatcmpl-1", created=2, model="m", system_fingerprint="fp_3")
ADD = ToolCall(name="add", arguments='{"a": 1}')
CALLS = Delta(target=1, tokens=(5,), calls=(ADD, ToolCall(name="now", arguments="{}")))
LENGTH = Finished(reason="length", usage=USAGE)


def document(*outputs: Merged, choices: int = 1, logprobs: bool = False) -> dict[str, Any]:
    """The answer that outputs give; held against the SDK's type."""
    whole = WholeChat(LABEL, choices=choices, logprobs=logprobs)
    for output in outputs:
        whole.add(output)
    assert whole.complete
    answer: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(whole.document()))
    checked(ChatCompletion, answer)
    return answer


def message(*outputs: Merged) -> dict[str, Any]:
    """The message of the only choice."""
    only: dict[str, Any] = document(*outputs)["choices"][0]["message"]
    return only


def test_text_is_put_together_with_what_was_held_back() -> None:
    """The answer's text ends with what came with the end."""
    last = Finished(reason="stop", usage=USAGE, text="!")

    assert message(STARTED, delta("Hello"), delta(" there"), last) == {
        "role": "assistant",
        "content": "Hello there!",
        "refusal": None,
    }


def test_message_that_only_calls_has_no_content() -> None:
    """Calls come with ids of their own, in their order, and the content is null."""
    answer = document(STARTED, delta("", "tool"), CALLS, FINISHED)
    (choice,) = answer["choices"]
    first, second = choice["message"]["tool_calls"]

    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "tool_calls"
    assert first["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert (first["type"], second["function"]["name"]) == ("function", "now")
    assert first["id"].startswith("call_")
    assert first["id"] != second["id"]


def test_text_beside_calls_stays() -> None:
    """What the model says before it calls is the content."""
    assert message(delta("Let me see."), CALLS, FINISHED)["content"] == "Let me see."


def test_empty_answer_has_content() -> None:
    """Null is for messages that call; an answer without a word is an empty text."""
    assert message(STARTED, FINISHED)["content"] == ""


def test_call_that_never_became_whole_is_text() -> None:
    """What the worker gives as text is shown, also where it looks like half a call."""
    assert message(delta("ok "), delta('<tool>{"na', "tool"), LENGTH)["content"] == 'ok <tool>{"na'


@pytest.mark.parametrize(
    ("finished", "called", "reason"),
    [(FINISHED, False, "stop"), (LENGTH, False, "length"), (FINISHED, True, "tool_calls"), (LENGTH, True, "length")],
)
def test_reason_is_right_in_every_case(finished: Finished, reason: str, *, called: bool) -> None:
    """Calls end an answer with a reason of their own, unless it was cut short."""
    assert finish_reason(finished, called=called) == reason


def test_given_up_answer_is_no_answer() -> None:
    """An answer that the server gave up is never passed off as complete."""
    with pytest.raises(ApiError, match="gave up"):
        finish_reason(Finished(reason="cancelled", usage=USAGE))


def test_log_probabilities_are_those_of_the_content() -> None:
    """What was thought is not content."""

    def step(text: str, channel: Any = "normal") -> Delta:
        logprob = TokenLogprob(token=1, bytes=tuple(text.encode()), logprob=-1.0)
        return Delta(target=1, tokens=(1,), text=text, channel=channel, logprobs=(logprob,))

    answer = document(step("hm", "reasoning"), step("Hi"), step("!"), FINISHED, logprobs=True)

    assert [each["token"] for each in answer["choices"][0]["logprobs"]["content"]] == ["Hi", "!"]
    assert document(step("Hi"), FINISHED)["choices"][0]["logprobs"] is None


def test_choices_are_told_apart() -> None:
    """Outputs of several generations become choices in the order of their numbers."""
    outputs = [Indexed(1, delta("b")), Indexed(0, delta("a")), Indexed(1, LENGTH), Indexed(0, FINISHED)]
    answer = document(*outputs, choices=2)

    assert [(each["index"], each["message"]["content"], each["finish_reason"]) for each in answer["choices"]] == [
        (0, "a", "stop"),
        (1, "b", "length"),
    ]


def test_answer_with_a_choice_missing_is_not_complete() -> None:
    """All choices must have ended."""
    whole = WholeChat(LABEL, choices=2, logprobs=False)
    whole.add(Indexed(0, FINISHED))

    assert not whole.complete


def test_prompt_counts_once_for_all_its_answers() -> None:
    """Usage has each prompt once, all answers' tokens, and only what no answer had to prefill as cached."""

    def end(prompt: int, completion: int, cached: int) -> Finished:
        usage = Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)
        return Finished(reason="stop", usage=usage)

    usage = total_usage([end(10, 1, 8), end(10, 2, 0), end(20, 3, 5), end(20, 4, 6)], 2, n=2)

    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (30, 10, 40)
    assert usage.prompt_tokens_details.cached_tokens == 5
    assert usage.completion_tokens_details.reasoning_tokens == 2


def test_answers_have_ids_of_their_own() -> None:
    """Two answers of one model differ by id and share the fingerprint; another model has another."""
    first, second, other = (new_label("chatcmpl", "a", model) for model in "mmn")

    assert first.id != second.id
    assert first.system_fingerprint == second.system_fingerprint != other.system_fingerprint
