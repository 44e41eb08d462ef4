"""Clients over HTTP while something goes wrong: they leave, they wait, they are refused; none is told a lie."""

from __future__ import annotations

import json
import time
from typing import Any

import aiohttp
import anyio
import pytest

from stoker.ipc.control_messages import RequestCounts
from tests.fakes.dispatch_stage import stage
from tests.fakes.fake_peer import GENERATE, linked
from tests.fakes.running_daemon import DEADLINE, RunningDaemon
from tests.survival.chat import PATH, body_of, chat
from tests.survival.conftest import Run

pytestmark = pytest.mark.anyio

SLOW: dict[str, dict[str, Any]] = {
    "load": {"load": {"seconds": 1.0, "steps": 10}},
    "warmup": {"warm": {"seconds": 1.0, "steps": 10}},
    "prefill": {"generate": {"prefill": {"seconds": 30.0, "steps": 300}}},
    "decode": {"generate": {"tokens_per_second": 2}},
}
"""Scenarios in which a request stays in a stage until its client leaves."""


async def counts_of(daemon: RunningDaemon, **expected: int) -> RequestCounts:
    """The daemon's counts once they are as expected."""
    with anyio.fail_after(DEADLINE):
        while True:
            counts = (await daemon.status()).requests
            if all(getattr(counts, name) == value for name, value in expected.items()):
                return counts
            await anyio.sleep(0.02)  # it is another process


@pytest.mark.parametrize("during", SLOW)
async def test_client_that_leaves_frees_its_place(run: Run, during: str) -> None:
    """A client that leaves frees its place at once, in any stage; load and warmup go on, and the next is served."""
    async with run(SLOW[during]) as daemon:
        if during in {"prefill", "decode"}:
            await daemon.ready()
        url = (await daemon.status()).http
        async with aiohttp.ClientSession() as http:
            with anyio.move_on_after(0.5):
                await http.post(f"{url}{PATH}", json=body_of("Hello?", max_tokens=100))
        counts = await counts_of(daemon, running=0, waiting=0)
        ready = await daemon.ready()

        assert (counts.cancelled, ready.generation) == (1, 1)
        if during in {"load", "warmup"}:
            assert ready.warm
            assert await chat(url, "Hello?")


async def test_failed_is_told_at_once(run: Run) -> None:
    """Where only a person helps, a request gets a 503 at once, with the last words and when to come again."""
    async with run({"faults": [{"at": "start", "do": "exit", "code": 3}]}) as daemon:
        async with daemon.control() as control:
            assert (await control.wait_ready(DEADLINE)).phase == "failed"
        url = (await daemon.status()).http
        began = time.monotonic()
        async with aiohttp.ClientSession() as http, http.post(f"{url}{PATH}", json=body_of("Hello?")) as answer:
            text = await answer.text()

        assert time.monotonic() - began < 1.0
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 5
        assert "fault: exit at start 0" in text


async def test_full_house_is_told_when_to_come_again(run: Run) -> None:
    """Over the bound of those who wait a request gets a 429 at once, and the time that a start takes here."""
    async with run(SLOW["load"] | {"load": {"seconds": 20, "steps": 200}}, STOKER_MAX_WAITING="1") as daemon:
        url = (await daemon.status()).http
        async with aiohttp.ClientSession() as http, anyio.create_task_group() as tasks:
            tasks.start_soon(http.post, f"{url}{PATH}")  # without a body, so that it is refused for that
            waiting = body_of("first")

            async def wait() -> None:
                await http.post(f"{url}{PATH}", json=waiting)

            tasks.start_soon(wait)
            await counts_of(daemon, waiting=1)
            async with http.post(f"{url}{PATH}", json=body_of("second")) as answer:
                assert answer.status == 429
                assert 1 <= int(answer.headers["Retry-After"]) <= 30
            tasks.cancel_scope.cancel()


async def broken_stream(http: aiohttp.ClientSession, url: str, user: str) -> bytes:
    """What comes of a stream that has no good end."""
    text = b""
    try:
        async with http.post(f"{url}{PATH}", json=body_of(user, stream=True)) as answer:
            async for line in answer.content:
                text += line
    except aiohttp.ClientPayloadError:
        return text
    raise AssertionError(f"it ended well: {text!r}")


async def test_poison_over_http(run: Run) -> None:
    """A request that crashes two workers gets a 500, its stream an error and no good end; the service goes on."""
    fault = {"at": "generate", "step": 2, "do": "exit", "code": 134, "containing": "poison"}
    async with run({"faults": [fault]}, STOKER_RESTART_LIMIT="20") as daemon:
        await daemon.ready()
        url = (await daemon.status()).http
        async with aiohttp.ClientSession() as http:
            async with http.post(f"{url}{PATH}", json=body_of("poison")) as answer:
                error = json.loads(await answer.text())["error"]
            text = await broken_stream(http, url, "more poison")
        after = await chat(url, "Hello?")
        generation = (await daemon.status()).generation

    assert (answer.status, error["code"]) == (500, "generation_failed")
    assert "ended two workers in a row" in error["message"]
    assert b"ended two workers in a row" in text
    assert b"[DONE]" not in text
    assert after
    assert generation == 5


async def test_others_are_answered_while_a_worker_will_not_end(run: Run) -> None:
    """While a stubborn worker is being ended, status and the other routes answer as ever."""
    async with run({"ignore_term": True, "ignore_eof": True}, STOKER_STOP_GRACE_SEC="2") as daemon:
        await daemon.ready()
        url = (await daemon.status()).http
        async with daemon.control() as control, aiohttp.ClientSession() as http:
            await control.restart()
            slowest = 0.0
            for _ in range(20):
                began = time.monotonic()
                assert (await http.get(f"{url}/livez")).status == 200
                await control.ready()
                slowest = max(slowest, time.monotonic() - began)
                await anyio.sleep(0.02)
        await daemon.ready(generation=2)

        assert slowest < 1.0  # a tenth of it on a machine that is not testing


async def test_waiting_requests_reach_the_worker_in_order() -> None:
    """Fifty requests that waited are sent to the worker in the order in which they came."""
    async with stage() as here, linked() as (link, peer):
        for number in range(50):
            await here.client(GENERATE.__class__(prompt=GENERATE.prompt, max_tokens=number + 1))
        await here.serve(link)

        assert [(await peer.asked_to_generate())[1].max_tokens for _ in range(50)] == list(range(1, 51))
