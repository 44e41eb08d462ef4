"""Chat completions and models, over real sockets, with the real SDK and with bytes."""

from __future__ import annotations

from typing import Any

import anyio
import openai
import pytest

from stoker.daemon.dispatch import RequestFailed, Unavailable
from stoker.ipc.errors import ErrorCode, ErrorData
from stoker.ipc.messages import Finished
from tests.fakes.fake_choices import FakeChoices, playing_each
from tests.fakes.fake_dispatch import (
    FINISHED,
    STARTED,
    USAGE,
    FakeBackend,
    Hold,
    answer,
    delta,
    playing,
)
from tests.fakes.http import chat, connected, events_of, exchange, sdk, serving
from tests.fakes.openai_requests import completion, tool

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


# -- answers -----------------------------------------------------------------------------------------------


async def test_sdk_reads_a_whole_answer() -> None:
    """The OpenAI client gets text, reason and token counts, and the model's name as it wrote it."""
    backend = playing(*answer("Par", "is"))
    async with serving(backend) as address, sdk(address) as client:
        completion = await client.chat.completions.create(
            model="SmolLM2-135M-Instruct", messages=[{"role": "user", "content": "Capital of France?"}]
        )

    assert completion.choices[0].message.content == "Paris"
    assert completion.choices[0].message.role == "assistant"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == "SmolLM2-135M-Instruct"
    assert completion.id.startswith("chatcmpl-")
    assert completion.usage is not None
    assert completion.usage.total_tokens == 12
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.prompt_tokens_details.cached_tokens == 7


async def test_sdk_reads_a_stream_with_usage() -> None:
    """The OpenAI client gets the pieces one by one, one reason, and a last chunk with the token counts."""
    async with serving(playing(*answer("Par", "is"))) as address, sdk(address) as client:
        stream = await client.chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": "Capital of France?"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]

    assert [chunk.choices[0].delta.content for chunk in chunks[:-2]] == ["", "Par", "is"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None, None, None, "stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens_details is not None
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 7
    assert len({chunk.id for chunk in chunks}) == 1


async def test_whole_answer_has_every_field_of_the_schema() -> None:
    """`refusal` and `logprobs` are there and null, as strict clients expect."""
    reply = await exchange(playing(*answer("Hi")), "POST", CHAT, chat())

    assert reply.status == 200
    document = reply.json
    assert document.pop("id").startswith("chatcmpl-")
    assert isinstance(document.pop("created"), int)
    assert document.pop("system_fingerprint").startswith("fp_")
    assert document == {
        "object": "chat.completion",
        "model": "default",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 3,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 7},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


async def test_stream_is_byte_for_byte_what_the_protocol_says() -> None:
    """Headers, role first, one reason, `[DONE]` last, and a proper end of the body."""
    script = (STARTED, delta("He"), Finished(reason="length", usage=USAGE, text="y"))
    reply = await exchange(playing(*script), "POST", CHAT, chat(stream=True))

    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-accel-buffering"] == "no"
    *chunks, done = events_of(reply.body)
    assert [chunk["choices"] for chunk in chunks] == [
        [{"index": 0, "delta": given, "logprobs": None, "finish_reason": reason}]
        for given, reason in [
            ({"role": "assistant", "content": "", "refusal": None}, None),
            ({"content": "He"}, None),
            ({"content": "y"}, None),
            ({}, "length"),
        ]
    ]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert done == "[DONE]"
    assert reply.complete


async def test_reasoning_goes_its_own_way() -> None:
    """What the model thinks comes as `reasoning_content`, in the stream and whole, and is counted."""
    script = (STARTED, delta("hmm", "reasoning", tokens=(1, 2)), delta("yes"), FINISHED)
    async with serving(playing(*script)) as address, connected(address) as client:
        await client.ask("POST", CHAT, chat(stream=True))
        streamed = events_of((await client.reply()).body)
        await client.ask("POST", CHAT, chat())
        whole = (await client.reply()).json

    assert [chunk["choices"][0]["delta"] for chunk in streamed[1:3]] == [
        {"reasoning_content": "hmm"},
        {"content": "yes"},
    ]
    assert whole["choices"][0]["message"]["reasoning_content"] == "hmm"
    assert whole["choices"][0]["message"]["content"] == "yes"
    assert whole["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}


# -- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_no_worker_is_a_503_with_its_last_words(*, stream: bool) -> None:
    """A request that no worker will take gets a real status, the reason, and when to come again."""
    refusal = Unavailable("the worker keeps dying", retry_after=7.2, last_words=("first", "Metal abort"))
    reply = await exchange(playing(refusal), "POST", CHAT, chat(stream=stream))

    assert reply.status == 503
    assert reply.headers["retry-after"] == "8"
    assert "the worker keeps dying" in reply.error["message"]
    assert "Metal abort" in reply.error["message"]
    assert "first" not in reply.error["message"]


async def test_full_waiting_room_is_a_429() -> None:
    """Too many waiting requests are another thing than no worker; a retry makes sense after a second at least."""
    reply = await exchange(playing(Unavailable("64 wait already", full=True)), "POST", CHAT, chat())

    assert reply.status == 429
    assert reply.headers["retry-after"] == "1"
    assert reply.error["code"] == "queue_full"


@pytest.mark.parametrize(
    ("code", "status", "name"),
    [
        (ErrorCode.INVALID_PROMPT, 400, "invalid_prompt"),
        (ErrorCode.CONTEXT_EXCEEDED, 400, "context_length_exceeded"),
        (ErrorCode.UNSUPPORTED, 400, "unsupported"),
        (ErrorCode.INSUFFICIENT_MEMORY, 503, "insufficient_memory"),
        (ErrorCode.GENERATION_FAILED, 500, "generation_failed"),
    ],
)
async def test_worker_refusal_has_its_status(code: ErrorCode, status: int, name: str) -> None:
    """What the worker says no to is the client's fault, a lack of memory, or ours; and the remedy is told."""
    refusal = RequestFailed(code, "it does not fit", ErrorData(remedy="send less"))
    reply = await exchange(playing(refusal), "POST", CHAT, chat(stream=True))

    assert reply.status == status
    assert reply.error["code"] == name
    assert reply.error["message"] == "it does not fit (send less)"
    assert ("retry-after" in reply.headers) is (status == 503)


async def test_sdk_sees_its_own_exceptions() -> None:
    """The OpenAI client raises the exception that it has for each refusal."""
    full = RequestFailed(ErrorCode.CONTEXT_EXCEEDED, "too long", ErrorData(field="messages"))
    async with serving(playing(full)) as address, sdk(address) as client:
        with pytest.raises(openai.BadRequestError) as too_long:
            await client.chat.completions.create(**chat())
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(**chat(model="gpt-5"))

    assert too_long.value.code == "context_length_exceeded"
    assert unknown.value.code == "model_not_found"
    assert unknown.value.param == "model"


# -- models ------------------------------------------------------------------------------------------------


async def test_models_are_listed_by_their_names() -> None:
    """The OpenAI client lists the model and its aliases, and finds each name that a request may use."""
    async with serving(FakeBackend()) as address, sdk(address) as client:
        listed = [model.id async for model in client.models.list()]
        found = [
            (await client.models.retrieve(name)).id
            for name in ["models/SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct", "default", "gpt-4o"]
        ]
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("other/model")

    assert listed == ["models/SmolLM2-135M-Instruct", "gpt-4o"]
    assert found == ["models/SmolLM2-135M-Instruct"] * 3 + ["gpt-4o"]


async def test_model_id_may_contain_a_plain_slash() -> None:
    """An id with slashes is found written as it is, not only percent-encoded."""
    reply = await exchange(FakeBackend(), "GET", "/v1/models/models/SmolLM2-135M-Instruct")

    assert reply.json["id"] == "models/SmolLM2-135M-Instruct"


# -- what the worker is asked, and what it says ------------------------------------------------------------


async def test_request_reaches_the_worker_as_it_was_meant() -> None:
    """Messages, limits and sampling arrive in the worker's terms."""
    backend = FakeBackend()
    await exchange(
        backend, "POST", CHAT, chat(max_tokens=5, temperature=0, top_p=0.5, seed=3, stop="END", user="someone")
    )

    (body,) = backend.dispatch.bodies
    assert body.max_tokens == 5
    assert body.stop == ("END",)
    assert (body.sampling.temperature, body.sampling.top_p, body.sampling.seed) == (0.0, 0.5, 3)


@pytest.mark.parametrize(
    ("fields", "field", "param"),
    [
        ({}, None, "messages"),
        ({}, "prompt", "messages"),
        ({}, "logit_bias", "logit_bias"),
        ({}, "template_args", "chat_template_kwargs"),
        ({"response_format": {"type": "json_object"}}, "constraint", "response_format"),
        ({"response_format": {"type": "json_object"}}, "constraint.schema", "response_format.json_schema.schema"),
        ({"tools": [tool("f")], "tool_choice": "required"}, "constraint", "tool_choice"),
    ],
    ids=str,
)
async def test_worker_refusal_names_the_clients_field(fields: dict[str, Any], field: str | None, param: str) -> None:
    """What the worker says of its own terms is said in those of the chat."""
    for code in (ErrorCode.UNSUPPORTED, ErrorCode.INVALID_PARAMS):
        refusal = RequestFailed(code, "no", ErrorData(field=field))
        reply = await exchange(playing(refusal), "POST", CHAT, chat(**fields))

        assert (reply.status, reply.error["param"]) == (400, param)


@pytest.mark.parametrize("field", [None, "prompt", "messages"])
async def test_worker_refusal_names_the_prompt_of_a_completion(field: str | None) -> None:
    """A completion has no messages to blame."""
    refusal = RequestFailed(ErrorCode.INVALID_PROMPT, "no", ErrorData(field=field))
    reply = await exchange(playing(refusal), "POST", "/v1/completions", completion())

    assert (reply.status, reply.error["param"]) == (400, "prompt")


# -- several answers at once -------------------------------------------------------------------------------


async def test_choices_come_in_one_answer() -> None:
    """With `n` one request is several generations, and one answer with one usage."""
    backend = playing_each(answer("a"), answer("b"), answer("c"))
    reply = await exchange(backend, "POST", CHAT, chat(n=3, seed=1))

    assert [choice["message"]["content"] for choice in reply.json["choices"]] == ["a", "b", "c"]
    assert reply.json["usage"]["completion_tokens"] == 3 * USAGE.completion_tokens
    assert reply.json["usage"]["prompt_tokens"] == USAGE.prompt_tokens
    assert [body.sampling.seed for body in backend.dispatch.bodies] == [1, 2, 3]


@pytest.mark.parametrize("stream", [False, True])
async def test_one_refused_choice_refuses_all(*, stream: bool) -> None:
    """Where one of several answers can't be made, the request fails with that reason, and the others end."""
    backend = playing_each((STARTED, Hold()), (Unavailable("64 wait already", full=True),))
    reply = await exchange(backend, "POST", CHAT, chat(n=2, stream=stream))

    if stream and reply.status == 200:
        assert events_of(reply.body)[-1]["error"]["code"] == "queue_full"
        assert not reply.complete
    else:
        assert (reply.status, reply.error["code"]) == (429, "queue_full")


async def test_client_that_leaves_ends_all_choices() -> None:
    """No choice runs on for a client that is gone."""
    holds = [Hold(), Hold()]
    backend = playing_each(*((STARTED, hold) for hold in holds))
    async with serving(backend) as address, connected(address) as client:
        await client.ask("POST", CHAT, chat(n=2, stream=True))
        for hold in holds:
            await hold.reached.wait()
        client.drop()
        with anyio.fail_after(5):
            await backend.dispatch.left_early.wait()

    assert isinstance(backend.dispatch, FakeChoices)
    assert sorted(backend.dispatch.left) == [0, 1]


# -- completions -------------------------------------------------------------------------------------------


async def test_completion_is_streamed_byte_for_byte() -> None:
    """Chunks of `text_completion`, `[DONE]` last, and a proper end of the body."""
    backend = playing(STARTED, delta(" upon"), Finished(reason="length", usage=USAGE))
    reply = await exchange(backend, "POST", "/v1/completions", completion(stream=True))
    *chunks, done = events_of(reply.body)

    assert [(chunk["object"], chunk["choices"][0]["text"]) for chunk in chunks] == [
        ("text_completion", " upon"),
        ("text_completion", ""),
    ]
    assert chunks[0]["id"].startswith("cmpl-")
    assert done == "[DONE]"
    assert reply.complete


async def test_refused_completion_has_a_status_of_its_own() -> None:
    """Also a stream that no worker takes, and a model that is not there."""
    refused = await exchange(playing(Unavailable("no worker")), "POST", "/v1/completions", completion(stream=True))
    unknown = await exchange(FakeBackend(), "POST", "/v1/completions", completion(model="gpt-5"))

    assert (refused.status, refused.error["code"]) == (503, "not_ready")
    assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
