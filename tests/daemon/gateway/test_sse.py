"""Streams that live, fail, and are left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import openai
import pytest

from stoker.daemon.dispatch import PrefillProgress, Unavailable, Waiting
from stoker.daemon.gateway import sse, streaming
from stoker.ipc.messages import Finished
from tests.fakes.fake_dispatch import FINISHED, STARTED, USAGE, FakeBackend, Hold, answer, delta, playing
from tests.fakes.http import chat, connected, events_of, exchange, sdk, serving

CHAT = "/v1/chat/completions"


async def gather(stream: AsyncIterator[Any], pieces: list[str | None]) -> None:
    """Put the pieces of text where they stay when the stream fails."""
    async for chunk in stream:
        pieces.append(chunk.choices[0].delta.content)  # noqa: PERF401 - a comprehension would lose them


@pytest.mark.anyio
async def test_silence_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing else is to be said, comments tell how far the prompt is."""
    monkeypatch.setattr(sse, "ALIVE_INTERVAL", 0.01)
    backend = playing(STARTED, PrefillProgress(done=512, total=1832), hold := Hold(), FINISHED)
    async with serving(backend) as address, connected(address) as client:
        await client.ask("POST", CHAT, chat(stream=True))
        await client.until(b": prefill 512/1832\n\n")
        hold.let_go.set()
        await client.until(b"data: [DONE]")


@pytest.mark.anyio
async def test_long_wait_shows_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that waits for a worker for long is opened, tells where it stands, and then goes its usual way."""
    monkeypatch.setattr(sse, "ALIVE_INTERVAL", 0.01)
    monkeypatch.setattr(streaming, "PATIENCE", 0.01)
    backend = playing(Waiting("loading", ahead=2), hold := Hold(), *answer("Hi"))
    async with serving(backend) as address, connected(address) as client:
        await client.ask("POST", CHAT, chat(stream=True))
        head = await client.until(b"\r\n\r\n")
        await client.until(b": loading, 2 ahead\n\n")
        hold.let_go.set()
        await client.until(b"data: [DONE]")

    assert b"X-Stoker-Phase: loading\r\nX-Stoker-Ahead: 2\r\n" in head


@pytest.mark.anyio
async def test_refusal_after_a_long_wait_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a stream is open, a refusal is its last event."""
    monkeypatch.setattr(streaming, "PATIENCE", 0.01)
    backend = playing(Waiting("loading", ahead=0), hold := Hold(), Unavailable("the model can't be loaded"))
    async with serving(backend) as address, connected(address) as client:
        await client.ask("POST", CHAT, chat(stream=True))
        await client.until(b"\r\n\r\n")
        hold.let_go.set()
        rest = await client.rest()

    assert b"the model can't be loaded" in rest
    assert b"[DONE]" not in rest


# -- failures in the middle --------------------------------------------------------------------------------

LOST = (STARTED, delta("Once"), Unavailable("three workers died over this request"))


@pytest.mark.anyio
async def test_stream_that_fails_has_no_clean_end() -> None:
    """A broken stream ends with the error, without `[DONE]`, and inside the chunked body."""
    reply = await exchange(playing(*LOST), "POST", CHAT, chat(stream=True))

    *_, error = events_of(reply.body)
    assert error["error"]["message"] == "No worker can take the request now: three workers died over this request."
    assert b"[DONE]" not in reply.body
    assert not reply.complete


@pytest.mark.anyio
async def test_sdk_raises_when_a_stream_fails() -> None:
    """The OpenAI client delivers what came before and then raises."""
    async with serving(playing(*LOST)) as address, sdk(address) as client:
        stream = await client.chat.completions.create(**chat(stream=True))
        pieces: list[str | None] = []
        with pytest.raises(openai.APIError, match="three workers died"):
            await gather(stream, pieces)

    assert pieces == ["", "Once"]


@pytest.mark.anyio
async def test_whole_answer_that_fails_is_an_error() -> None:
    """Half an answer is never delivered as one."""
    reply = await exchange(playing(*LOST), "POST", CHAT, chat())

    assert reply.status == 503
    assert reply.error["code"] == "not_ready"


@pytest.mark.parametrize(
    "script",
    [
        (STARTED, delta("Once"), Finished(reason="cancelled", usage=USAGE)),
        (STARTED, delta("Once")),
        (),
    ],
    ids=["given up", "no result", "nothing"],
)
@pytest.mark.anyio
async def test_answer_without_an_end_is_an_error(script: tuple[Any, ...]) -> None:
    """An answer that was given up, or that just stops, is no answer."""
    reply = await exchange(playing(*script), "POST", CHAT, chat())

    assert reply.status in {500, 503}
    assert reply.error["type"] == "server_error"


@pytest.mark.anyio
async def test_answer_may_begin_at_once() -> None:
    """Nothing is lost of an answer that comes without a word about its admission."""
    reply = await exchange(playing(delta("On"), delta("ce"), FINISHED), "POST", CHAT, chat())

    assert reply.json["choices"][0]["message"]["content"] == "Once"


# -- clients that leave ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("before", [(), (STARTED,), (STARTED, delta("Once"))], ids=["waiting", "prefill", "decode"])
@pytest.mark.anyio
async def test_client_that_leaves_ends_its_generation(before: tuple[Any, ...], *, stream: bool) -> None:
    """Whatever the request is doing, it is given up as soon as its connection is gone."""
    hold = Hold()
    backend = playing(*before, hold)
    async with serving(backend) as address, connected(address) as client:
        await client.ask("POST", CHAT, chat(stream=stream))
        await hold.reached.wait()
        client.drop()
        with anyio.fail_after(5):
            await backend.dispatch.left_early.wait()


@pytest.mark.anyio
async def test_client_that_closes_politely_is_gone_too() -> None:
    """A closed stream of the OpenAI client ends its generation."""
    hold = Hold()
    backend = playing(STARTED, delta("Once"), hold)
    async with serving(backend) as address, sdk(address) as client:
        stream = await client.chat.completions.create(**chat(stream=True))
        await hold.reached.wait()
        await stream.close()
        with anyio.fail_after(5):
            await backend.dispatch.left_early.wait()


@pytest.mark.anyio
async def test_client_that_reads_nothing_stalls_nobody() -> None:
    """Beside a client that doesn't read, another one gets its whole answer."""
    backend = FakeBackend()
    async with serving(backend) as address, connected(address) as stuck, connected(address) as quick:
        backend.dispatch.script = (STARTED, *(delta("x" * 65536) for _ in range(500)), FINISHED)
        await stuck.ask("POST", CHAT, chat(stream=True))
        await stuck.until(b"\r\n\r\n")
        backend.dispatch.script = answer("Hi")
        await quick.ask("POST", CHAT, chat(stream=True))
        reply = await quick.reply()

        assert reply.complete
        assert backend.dispatch.finished == 1, "the other one still waits"


@pytest.mark.anyio
async def test_client_that_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generation is not held for ever by a client that takes nothing."""
    monkeypatch.setattr(sse, "SEND_TIMEOUT", 0.05)
    backend = playing(STARTED, *(delta("x" * 65536) for _ in range(500)), FINISHED)
    async with serving(backend) as address, connected(address) as stuck:
        await stuck.ask("POST", CHAT, chat(stream=True))
        with anyio.fail_after(5):
            await backend.dispatch.left_early.wait()
