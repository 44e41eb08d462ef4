"""Messages and their counts, over real sockets, with Anthropic's real SDK and with bytes."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import pytest

from stoker.daemon.dispatch import RequestFailed, Unavailable, Waiting
from stoker.daemon.gateway import sse, streaming
from stoker.ipc.errors import ErrorCode, ErrorData
from stoker.ipc.messages import CountTokens, Delta, Finished, ToolCall
from tests.fakes.anthropic_client import COUNT, MESSAGES, WEATHER, ask, events_of, sdk
from tests.fakes.fake_dispatch import (
    FINISHED,
    STARTED,
    USAGE,
    FakeBackend,
    FakeModels,
    Hold,
    answer,
    delta,
    playing,
)
from tests.fakes.http import connected, exchange, serving

pytestmark = pytest.mark.anyio

USER = {"role": "user", "content": "Weather in Paris?"}
CALL = Delta(target=1, tokens=(4,), calls=(ToolCall(name="get_weather", arguments='{"city": "Paris"}'),))
CALLING = (STARTED, delta("hm", "reasoning"), delta("Let me see."), CALL, FINISHED)


# -- answers -----------------------------------------------------------------------------------------------


async def test_sdk_reads_a_whole_answer() -> None:
    """The Anthropic client gets text, reason, token counts and ids, and the model's name as it wrote it."""
    async with serving(playing(*answer("Par", "is"))) as address, sdk(address) as client:
        message = await client.messages.create(**ask(model="SmolLM2-135M-Instruct"))

    assert [block.model_dump(exclude_none=True) for block in message.content] == [{"type": "text", "text": "Paris"}]
    assert (message.role, message.type, message.model) == ("assistant", "message", "SmolLM2-135M-Instruct")
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.id.startswith("msg_")
    assert message._request_id is not None
    assert message._request_id.startswith("req_")
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens, message.usage.output_tokens) == (
        2,
        7,
        3,
    )


async def test_sdk_reads_a_stream() -> None:
    """The client's stream helper gives the pieces, and the message that a whole answer would have been."""
    async with (
        serving(playing(*answer("Par", "is"))) as address,
        sdk(address) as client,
        client.messages.stream(**ask()) as stream,
    ):
        pieces = [text async for text in stream.text_stream]
        message = await stream.get_final_message()

    assert pieces == ["Par", "is"]
    assert (message.stop_reason, message.usage.output_tokens, message.usage.input_tokens) == ("end_turn", 3, 2)


async def test_sdk_sees_tools_and_thinking() -> None:
    """Thinking, text and a call are blocks of their own, the same in a stream and whole."""
    fields: dict[str, Any] = ask(tools=[WEATHER], messages=[USER], tool_choice={"type": "auto"})
    async with serving(playing(*CALLING)) as address, sdk(address) as client:
        whole = await client.messages.create(**fields)
        async with client.messages.stream(**fields) as stream:
            streamed = await stream.get_final_message()

    for message in (whole, streamed):
        blocks = [block.model_dump(exclude_none=True) for block in message.content]
        assert blocks.pop()["id"].startswith("toolu_")
        assert blocks == [
            {"type": "thinking", "thinking": "hm", "signature": "stoker"},
            {"type": "text", "text": "Let me see."},
        ]
        assert message.content[-1].model_dump(include={"type", "name", "input"}) == {
            "type": "tool_use",
            "name": "get_weather",
            "input": {"city": "Paris"},
        }
        assert message.stop_reason == "tool_use"


async def test_answer_may_be_sent_back() -> None:
    """A conversation goes on with the answer's own blocks, as the client keeps them, and the tool's result."""
    backend = playing(*CALLING)
    async with serving(backend) as address, sdk(address) as client:
        async with client.messages.stream(**ask(tools=[WEATHER], messages=[USER])) as stream:
            message = await stream.get_final_message()
        called = message.content[-1]
        assert called.type == "tool_use"
        result = {"type": "tool_result", "tool_use_id": called.id, "content": "sunny"}
        history = [USER, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
        await client.messages.create(**ask(tools=[WEATHER], messages=history))

    roles = [each["role"] for each in backend.dispatch.bodies[-1].prompt.messages]  # type: ignore[union-attr]
    assert roles == ["user", "assistant", "tool"]


async def test_stop_sequence_is_told() -> None:
    """The client learns which of its sequences ended the answer."""
    script = (STARTED, delta("a"), Finished(reason="stop", usage=USAGE, stop="END"))
    async with serving(playing(*script)) as address, sdk(address) as client:
        message = await client.messages.create(**ask(stop_sequences=["END"]))

    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")


async def test_sdk_counts() -> None:
    """A count is the worker's own, of the prompt that an answer would have."""
    backend = FakeBackend()
    async with serving(backend) as address, sdk(address) as client:
        counted = await client.messages.count_tokens(
            model="default", messages=[{"role": "user", "content": "Hi"}], system="Be brief."
        )
        await client.messages.create(**ask(system="Be brief."))

    assert counted.input_tokens == 9
    assert backend.dispatch.counted == [CountTokens(prompt=backend.dispatch.bodies[0].prompt)]


async def test_stream_is_in_the_wire_format() -> None:
    """Headers as for any stream, an id for the request, every event under its name, and a proper end."""
    reply = await exchange(playing(*answer("Hi")), "POST", MESSAGES, ask(stream=True))

    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["request-id"].startswith("req_")
    assert [event["type"] for event in events_of(reply.body)] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert reply.complete


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("anthropic-version", "2023-06-01")],
        [("anthropic-version", "2099-01-01"), ("anthropic-beta", "prompt-caching-2024-07-31,anything")],
    ],
)
async def test_any_version_is_spoken(headers: list[tuple[str, str]]) -> None:
    """Whatever version and betas a client names, or none, it is served."""
    reply = await exchange(playing(*answer("Hi")), "POST", MESSAGES, ask(), [("Host", "localhost"), *headers])

    assert reply.status == 200


# -- waiting -----------------------------------------------------------------------------------------------


async def test_sdk_waits_through_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings before and within an answer keep the connection alive, and the client makes nothing of them."""
    monkeypatch.setattr(streaming, "PATIENCE", 0.0)
    monkeypatch.setattr(sse, "ALIVE_INTERVAL", 0.02)
    waiting, prefilling = Hold(), Hold()
    backend = playing(Waiting("loading", 0), waiting, STARTED, prefilling, delta("Hi"), FINISHED)
    async with serving(backend) as address, connected(address) as client:
        await client.ask("POST", MESSAGES, ask(stream=True))
        before = await client.until(b'{"type":"ping"}\n\n')
        waiting.let_go.set()
        await client.until(b"event: message_start\n")
        within = await client.until(b'{"type":"ping"}\n\n')
        prefilling.let_go.set()
        await client.until(b"event: message_stop\n")

    assert b"message_start" not in before
    assert b"content_block_start" not in within

    async with serving(backend) as address, sdk(address) as client:
        holds = (waiting, prefilling) = Hold(), Hold()
        backend.dispatch.script = (Waiting("loading", 0), waiting, STARTED, prefilling, delta("Hi"), FINISHED)
        async with client.messages.stream(**ask()) as stream:
            for hold in holds:
                asyncio.get_running_loop().call_later(0.1, hold.let_go.set)
            message = await stream.get_final_message()

    assert message.content[0].model_dump()["text"] == "Hi"


# -- failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "exception", "kind"),
    [
        (RequestFailed(ErrorCode.UNSUPPORTED, "no", ErrorData()), anthropic.BadRequestError, "invalid_request_error"),
        (Unavailable("64 wait already", full=True), anthropic.RateLimitError, "rate_limit_error"),
        (Unavailable("the worker keeps dying"), anthropic.ServiceUnavailableError, "overloaded_error"),
        (RuntimeError("secret"), anthropic.InternalServerError, "api_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_sdk_raises_its_own_exceptions(
    failure: Exception, exception: type[anthropic.APIStatusError], kind: str, stream: bool
) -> None:
    """The client raises the exception that it has for each refusal, and knows its type and its request."""
    async with serving(playing(failure)) as address, sdk(address) as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.create(**ask(stream=stream))

    assert type(caught.value) is exception
    assert caught.value.type == kind
    assert caught.value.request_id is not None
    assert "secret" not in str(caught.value)


async def test_full_context_is_told_as_agents_expect() -> None:
    """An agent that compacts its conversation when the prompt is too long recognizes the message."""
    full = RequestFailed(ErrorCode.CONTEXT_EXCEEDED, "the prompt has 9 tokens", ErrorData(field="messages"))
    async with serving(playing(full)) as address, sdk(address) as client:
        with pytest.raises(anthropic.BadRequestError) as caught:
            await client.messages.create(**ask())

    assert caught.value.error_code == "context_length_exceeded"
    assert caught.value.api_message == "prompt is too long: the prompt has 9 tokens"


async def test_unknown_model_is_a_404_unless_any_is_accepted() -> None:
    """Agents that insist on names of their own need `accept_any_model`, or an alias."""
    strict, lenient = FakeBackend(), FakeBackend(models=FakeModels(accept_any=True))
    async with serving(strict) as address, sdk(address) as client:
        with pytest.raises(anthropic.NotFoundError) as caught:
            await client.messages.create(**ask(model="claude-of-tomorrow"))
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.count_tokens(model="claude-of-tomorrow", messages=[USER])  # type: ignore[list-item]
    async with serving(lenient) as address, sdk(address) as client:
        message = await client.messages.create(**ask(model="claude-of-tomorrow"))

    assert caught.value.type == "not_found_error"
    assert message.model == "claude-of-tomorrow"


async def test_broken_stream_never_looks_complete() -> None:
    """What fails in the middle ends with an error event, no stop, and a body without its end; the client raises."""
    script = (STARTED, delta("Hel"), Unavailable("3 workers in a row failed"))
    reply = await exchange(playing(*script), "POST", MESSAGES, ask(stream=True))
    *before, last = events_of(reply.body)

    assert not reply.complete
    assert [event["type"] for event in before] == ["message_start", "content_block_start", "content_block_delta"]
    assert last["error"]["type"] == "overloaded_error"
    assert last["request_id"] == reply.headers["request-id"]

    async with serving(playing(*script)) as address, sdk(address) as client:
        with pytest.raises(anthropic.APIStatusError, match="3 workers"):
            async with client.messages.stream(**ask()) as stream:
                await stream.get_final_message()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("path", [MESSAGES, COUNT])
async def test_malformed_json_is_a_400_in_shape(body: bytes, path: str) -> None:
    """Whatever the bytes are, the answer is a 400 in Anthropic's shape."""
    reply = await exchange(FakeBackend(), "POST", path, body)

    assert reply.status == 400
    assert reply.json["error"]["type"] == "invalid_request_error"
    assert reply.json["request_id"] == reply.headers["request-id"]


async def test_wrong_method_is_a_405_in_shape() -> None:
    """A 405 names the right method, in Anthropic's shape."""
    reply = await exchange(FakeBackend(), "GET", MESSAGES)

    assert reply.status == 405
    assert reply.headers["allow"] == "POST"
    assert reply.json["error"]["type"] == "invalid_request_error"


async def test_slow_body_is_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not come is not waited for without end."""
    monkeypatch.setattr("stoker.daemon.gateway.bodies.BODY_TIMEOUT", 0.05)
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        reply = await client.reply()

    assert reply.status == 408
    assert reply.json["error"]["details"]["error_code"] == "request_timeout"


async def test_client_that_leaves_ends_its_generation() -> None:
    """Nobody computes for a client that is gone."""
    hold = Hold()
    backend = playing(STARTED, delta("Hi"), hold)
    async with serving(backend) as address, connected(address) as client:
        await client.ask("POST", MESSAGES, ask(stream=True))
        await client.until(b"text_delta")
        client.drop()
        async with asyncio.timeout(10):
            await backend.dispatch.left_early.wait()
