"""A killed and resumed answer is, byte for byte, that of an undisturbed run: the real worker on tiny models."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import msgspec
import pytest

from stoker.daemon import mailbox
from stoker.daemon.lifecycle import Greeted, Loaded
from stoker.daemon.link import WorkerLink
from stoker.ipc.messages import ChatPrompt, Delta, Finished, Generate, Load, Sampling, TextPrompt
from tests.fakes.living import living
from tests.fakes.running_daemon import RunningDaemon
from tests.fakes.scripted_model import WEATHER
from tests.survival.chat import PATH, body_of, pieces, whole
from tests.survival.conftest import EAGER

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

WORKER = (sys.executable, "-m", "stoker.worker")

HALF_CHARACTERS = {0xC3: 1000.0, 0xA9: 1000.0}
"""A bias under which answers are `é`, halves of it, and what is no UTF-8 at all: a token is a byte."""


@pytest.fixture
def unmerged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each delta is read as it came, so that there is a cut after each token."""
    monkeypatch.setattr(mailbox, "_merge", lambda _old, _new: None)


@asynccontextmanager
async def worker(folder: Path, model: Path) -> AsyncIterator[WorkerLink]:
    """A real worker with its model loaded."""
    load = Load(model=str(model), cache_dir=str(folder / "cache"))
    async with living(folder, command=WORKER, load=load) as alive:
        await alive.until(Greeted)
        alive.tasks.start_soon(alive.life.load)
        await alive.until(Loaded)
        yield alive.link


Piece = tuple[tuple[int, ...], Any]
"""What one delta adds: its tokens, and all that a client sees of it."""


def seen(delta: Delta | Finished) -> tuple[Any, ...]:
    calls = delta.calls if isinstance(delta, Delta) else ()
    return (delta.channel, delta.text, tuple((call.name, call.arguments) for call in calls))


async def answered(link: WorkerLink, body: Generate) -> tuple[list[Piece], Finished]:
    """All that a worker says to a request, delta by delta."""
    said: list[Piece] = []
    async with link.ask(body) as (_, mail_of_it):
        while not isinstance(mail := await mail_of_it.get(), Finished):
            if isinstance(mail, Delta):
                said.append((mail.tokens, seen(mail)))
        return said, mail


def ending(end: Finished) -> list[tuple[Any, ...]]:
    """What a client sees of the end: in one message, so that there is nothing to cut."""
    return [*map(seen, end.held), seen(end)]


def joined(parts: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """What a client that puts pieces of one channel together has in the end."""
    whole: list[tuple[Any, ...]] = []
    for channel, text, calls in parts:
        if whole and whole[-1][0] == channel and not whole[-1][2] and not calls:
            whole[-1] = (channel, whole[-1][1] + text, ())
        elif text or calls:
            whole.append((channel, text, calls))
    return whole


async def cut_everywhere(link: WorkerLink, body: Generate) -> int:
    """Resume the answer after each of its deltas, as after a kill there, and compare; returns the number of cuts."""
    said, end = await answered(link, body)
    whole = joined([part for _, part in said] + ending(end))
    for cut in range(len(said)):
        kept = said[: cut + 1]
        emitted = tuple(token for tokens, _ in kept for token in tokens)
        rest, resumed_end = await answered(link, msgspec.structs.replace(body, emitted=emitted))
        parts = [part for _, part in (*kept, *rest)] + ending(resumed_end)
        assert joined(parts) == whole, f"cut after {emitted}"
        assert (resumed_end.reason, resumed_end.stop) == (end.reason, end.stop)
        assert resumed_end.usage.completion_tokens == end.usage.completion_tokens
        assert resumed_end.usage.prompt_tokens == end.usage.prompt_tokens
    return len(said)


SAMPLINGS = {
    "greedy": Sampling(),
    "seeded": Sampling(temperature=0.9, seed=11),
    "top-p and top-k": Sampling(temperature=1.1, seed=5, top_p=0.9, top_k=40),
    "penalties": Sampling(temperature=0.8, seed=3, presence_penalty=0.5, frequency_penalty=0.3),
    "half characters": Sampling(logit_bias=HALF_CHARACTERS),
    "half characters, seeded": Sampling(temperature=1.0, seed=8, logit_bias=HALF_CHARACTERS),
}


@pytest.mark.usefixtures("unmerged")
async def test_every_cut_of_every_sampling(short_dir: Path, tiny_llama: Path) -> None:
    """Cut after any token, an answer goes on exactly: greedy, seeded, penalised, and inside a character."""
    async with worker(short_dir, tiny_llama) as link:
        for sampling in SAMPLINGS.values():
            body = Generate(prompt=TextPrompt(text="Once upon a time"), max_tokens=16, sampling=sampling)
            assert await cut_everywhere(link, body) == 16


@pytest.mark.usefixtures("unmerged")
async def test_stop_words_across_the_cut(short_dir: Path, tiny_llama: Path) -> None:
    """A stop word of which one worker said the beginning and the next one the end is found, and not shown."""
    async with worker(short_dir, tiny_llama) as link:
        # A hot answer, so that it does not repeat itself.
        hot = Sampling(temperature=1.5, seed=4)
        body = Generate(prompt=TextPrompt(text="Once upon a time"), max_tokens=24, sampling=hot)
        said, _ = await answered(link, body)
        text = "".join(part[1] for _, part in said)
        stop = next(text[at : at + 5] for at in range(8, len(text)) if text.find(text[at : at + 5]) == at)
        stopped = msgspec.structs.replace(body, stop=(stop,))
        assert await cut_everywhere(link, stopped) > 4
        _, end = await answered(link, stopped)

    assert end.stop == stop


@pytest.mark.usefixtures("unmerged")
async def test_reasoning_and_calls_across_the_cut(short_dir: Path, scripted_model: Path) -> None:
    """Reasoning, tool calls, broken calls and calls without an end go on exactly, wherever they are cut."""
    async with worker(short_dir, scripted_model) as link:
        for script in ("reasoned", "two calls", "thought then call", "broken call", "open call", "fire"):
            prompt = ChatPrompt(messages=({"role": "user", "content": script},), tools=(WEATHER,))
            assert await cut_everywhere(link, Generate(prompt=prompt, max_tokens=80)) > 2, script


# -- with the daemon, and real kills -----------------------------------------------------------------------


async def kill_after(daemon: RunningDaemon, body: dict[str, Any], characters: int) -> str:
    """The text of a stream whose worker is killed as soon as it has so many characters."""
    status = await daemon.status()
    assert status.worker is not None
    worker, text = status.worker.pid, ""
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{status.http}{PATH}", json={**body, "stream": True}) as answer,
    ):
        async for piece in pieces(answer):
            text += piece
            if worker and len(text) >= characters:
                os.kill(worker, signal.SIGKILL)
                worker = 0
    assert not worker
    return text


async def long_answers(url: str) -> list[tuple[dict[str, Any], str]]:
    """A greedy and a seeded request that are long enough to be killed in the middle, and their answers in calm."""
    greedy = body_of("Tell me a story.", max_tokens=500)
    for seed in range(50):  # a random model may well end at once
        seeded = {**greedy, "temperature": 0.9, "seed": seed}
        if len(text := await whole(url, seeded)) > 100:
            return [(greedy, await whole(url, greedy)), (seeded, text)]
    raise AssertionError("no seed gives a long answer")


async def _killed_streams(model: Path, cuts: tuple[int, ...]) -> None:
    async with RunningDaemon(model, EAGER | {"STOKER_RESTART_LIMIT": "100"}) as daemon:
        await daemon.ready()
        calm = await long_answers((await daemon.status()).http)
        for number, cut in enumerate(cuts):
            body, text = calm[number % len(calm)]
            assert await kill_after(daemon, body, cut) == text, f"cut after {cut} characters"
            await daemon.ready(generation=number + 2)
        counts = (await daemon.status()).requests

    assert counts.failed == 0
    assert counts.resumed >= len(cuts) - 1  # one answer may have been complete before its worker heard the kill


async def test_killed_streams_are_those_of_a_calm_day(tiny_llama: Path) -> None:
    """Greedy and seeded streams whose real worker is killed say what they say undisturbed."""
    await _killed_streams(tiny_llama, cuts=(1, 40))


async def test_killed_answer_without_a_stream(tiny_llama: Path) -> None:
    """An answer that is sent as a whole survives its worker too."""
    body = body_of("Tell me a story.", max_tokens=500)
    async with RunningDaemon(tiny_llama, {"STOKER_BACKOFF_BASE_SEC": "0.01"}) as daemon:
        await daemon.ready()
        url = (await daemon.status()).http
        calm = await whole(url, body)
        got: list[str] = []

        async def ask() -> None:
            got.append(await whole(url, body))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            while not (await daemon.status()).requests.running:  # noqa: ASYNC110 - it is another process
                await anyio.sleep(0.005)
            os.kill(await daemon.worker_pid(), signal.SIGKILL)
        await daemon.ready(generation=2)
        counts = (await daemon.status()).requests

    assert got == [calm]
    assert (counts.resumed, counts.failed) == (1, 0)


@pytest.mark.storm
@pytest.mark.timeout(600)
async def test_killed_after_every_character(tiny_llama: Path) -> None:
    """The same, killed after each of the first sixty characters."""
    await _killed_streams(tiny_llama, cuts=tuple(range(1, 61)))
