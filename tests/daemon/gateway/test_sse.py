"""Streams that live, fail, and are left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import openai
import pytest

from stoker.daemon.dispatch import PrefillProgress, Unavailable
from stoker.daemon.gateway import sse
from stoker.daemon.gateway.sse import Pace
from stoker.ipc.messages import Finished
from tests.fakes.fake_dispatch import FINISHED, STARTED, USAGE, FakeBackend, Hold, answer, delta, playing
from tests.fakes.http import chat, connected, events_of, exchange, sdk, serving

CHAT = "/v1/chat/completions"


async def gather(stream: AsyncIterator[Any], pieces: list[str | None]) -> None:
    """Put the pieces of text where they stay when the stream fails."""
    async for chunk in stream:
        pieces.append(chunk.choices[0].delta.content)  # noqa: PERF401 - a comprehension would lose them


def test_pace_lets_one_through_per_interval() -> None:
    """The first time is one interval after the beginning, the next one interval after that."""
    now = 0.0
    pace = Pace(3.0, lambda: now)
    due = []
    for now in (0.0, 2.9, 3.0, 3.1, 5.9, 6.0, 20.0, 20.1):  # noqa: B007 - the clock reads it
        due.append(pace.due())  # noqa: PERF401 - the clock moves between two readings

    assert due == [False, False, True, False, False, True, True, False]


@pytest.mark.anyio
async def test_long_prefill_shows_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the prompt is read, comments tell how far it is."""
    monkeypatch.setattr(sse, "COMMENT_INTERVAL", 0.0)
    script = (STARTED, PrefillProgress(done=512, total=1832), delta("Hi"), FINISHED)
    reply = await exchange(playing(*script), "POST", CHAT, chat(stream=True))

    assert b"\n\n: prefill 512/1832\n\ndata: " in reply.body


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
