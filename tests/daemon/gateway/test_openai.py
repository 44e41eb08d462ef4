"""Chat completions and models, over real sockets, with the real SDK and with bytes."""

from __future__ import annotations

import openai
import pytest

from stoker.daemon.dispatch import RequestFailed, Unavailable
from stoker.ipc.errors import ErrorCode, ErrorData
from stoker.ipc.messages import Finished
from tests.fakes.fake_dispatch import (
    FINISHED,
    STARTED,
    USAGE,
    FakeBackend,
    FakeModels,
    answer,
    delta,
    playing,
)
from tests.fakes.http import chat, connected, events_of, exchange, sdk, serving

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


async def test_model_that_is_not_known_yet_is_a_503() -> None:
    """Before the first load there is nothing to show under a name, and asking again makes sense."""
    backend = FakeBackend(models=FakeModels(id=None))
    reply = await exchange(backend, "GET", "/v1/models/default")

    assert reply.status == 503
    assert reply.headers["retry-after"] == "1"


# -- bodies ------------------------------------------------------------------------------------------------


async def test_slow_body_is_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not come is not waited for without end."""
    monkeypatch.setattr("stoker.daemon.gateway.openai.BODY_TIMEOUT", 0.05)
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        reply = await client.reply()

    assert reply.status == 408
    assert reply.error["code"] == "request_timeout"


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
