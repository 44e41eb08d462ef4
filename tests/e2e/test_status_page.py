"""The status page's stream, its actions and the metrics, over a real daemon and a real worker."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from tests.fakes.running_daemon import DEADLINE, RunningDaemon

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SECRET = "a heron named Balthazar"


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """What the page hears, by name."""
    name = ""
    async for line in response.content:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


async def test_page_sees_a_real_daemon(tiny_llama: Path) -> None:
    """A request is in the sample and in the metrics, a restart in the phases, and no prompt is in either."""
    async with (
        RunningDaemon(tiny_llama, {"STOKER_LOG_LEVEL": "debug"}) as daemon,
        aiohttp.ClientSession(read_bufsize=1 << 20) as http,
    ):
        await daemon.ready()
        url = (await daemon.status()).http
        question = {"messages": [{"role": "user", "content": SECRET}], "model": "default", "max_tokens": 8}
        heard: list[Any] = []
        with anyio.fail_after(DEADLINE):
            async with http.get(f"{url}/events") as page:
                stream = events(page)
                token = (await anext(stream))[1]["token"]
                async with http.post(f"{url}/v1/chat/completions", json=question) as answer:
                    assert answer.status == 200
                async for name, data in stream:
                    heard.append(data)
                    if name == "sample" and data["ended"]:
                        break
                async with http.post(f"{url}/actions/restart", headers={"X-Stoker-Token": token}) as accepted:
                    assert accepted.status == 200
                missing = {"line", "readiness"}  # in whatever order
                while missing:
                    heard.append(data := (await anext(stream))[1])
                    if "phase=ready generation=2" in json.dumps(data.get("lines", ())):
                        missing.discard("line")
                    if data.get("readiness", {}).get("generation") == 2:
                        missing.discard("readiness")
                while not (await daemon.status()).restarts:  # the old worker may still be on its way out
                    heard.append((await anext(stream))[1])
            async with http.get(f"{url}/metrics") as scrape:
                metrics = await scrape.text()
        (record,) = (record for data in heard for record in data.get("ended", ()))

        assert (record["outcome"], record["generation"]) == ("served", 1)
        assert record["first_token"] > 0
        assert 'stoker_requests_total{outcome="served"} 1.0' in metrics
        assert 'stoker_worker_departures_total{cause="requested"} 1.0' in metrics
        assert float(re.findall(r'stoker_worker_start_seconds\{step="starting"\} (\S+)', metrics)[0]) > 0
        assert "heron" not in json.dumps(heard) + metrics


async def test_open_page_does_not_hold_up_the_end(tiny_llama: Path) -> None:
    """A daemon that is told to stop tells the page, and ends as fast as without one."""
    async with RunningDaemon(tiny_llama) as daemon, aiohttp.ClientSession() as http:
        await daemon.ready()
        url = (await daemon.status()).http
        async with http.get(f"{url}/events") as page:
            with anyio.fail_after(DEADLINE):
                async with daemon.control() as control:
                    await control.stop()
                names = [name async for name, _ in events(page)]
                code = await anyio.to_thread.run_sync(daemon.process.wait)

        assert (names[-1], code) == ("bye", 0)
