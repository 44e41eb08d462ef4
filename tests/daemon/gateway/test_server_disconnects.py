"""Clients that leave, over the real dispatch, the real link, and a worker process: nothing stays behind.

`STOKER_DISCONNECTS=10000 pytest tests/daemon/gateway/test_server_disconnects.py` is the long form.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import anyio
import psutil
import pytest

from stoker.daemon.dispatch import Dispatch, Limits
from stoker.daemon.gateway.keys import Access
from stoker.daemon.insight import Insight
from stoker.daemon.lifecycle import Greeted, Phase, State
from stoker.daemon.link import WorkerLink
from stoker.daemon.readiness import NOTHING_YET, Board, describe
from stoker.ipc.control_messages import RewarmReport, StatusReport
from stoker.ipc.messages import Figures, Statistics, WarmPrefix
from tests.fakes.fake_dispatch import FakeBackend, FakeModels
from tests.fakes.http import Address, chat, connected, serving
from tests.fakes.living import Live

pytestmark = pytest.mark.anyio

DISCONNECTS = int(os.environ.get("STOKER_DISCONNECTS", "300"))
AT_ONCE = 20
SEED = 79288425

MESSAGES = {"messages": [{"role": "user", "content": "Hi"}], "model": "default", "max_tokens": 1000}
REQUESTS: Mapping[str, dict[str, Any]] = {
    "/v1/chat/completions": chat(max_tokens=1000),
    "/v1/completions": {"model": "default", "prompt": "Hi", "max_tokens": 1000},
    "/v1/responses": {"model": "default", "input": "Hi", "max_output_tokens": 1000},
    "/v1/messages": MESSAGES,
}
SLOW = {"generate": {"prefill": {"seconds": 0.05, "steps": 5}, "tokens_per_second": 200}}


@dataclass
class Real:
    """A backend whose dispatch is the real one."""

    link: WorkerLink | None = None
    board: Board = field(default_factory=lambda: Board(NOTHING_YET))
    models: FakeModels = field(default_factory=FakeModels)
    host: str = "127.0.0.1"
    access: Access = field(default_factory=Access)

    def __post_init__(self) -> None:
        self.dispatch = Dispatch(self.board, lambda: self.link, lambda: (), Limits(max_waiting=1000))
        self.insight = Insight.over(self.board, self.dispatch.records)

    async def restart(self, *, cold: bool) -> None:
        raise NotImplementedError

    async def rewarm(self, prompts: tuple[WarmPrefix, ...]) -> RewarmReport:
        raise NotImplementedError

    async def status(self) -> StatusReport:
        return await FakeBackend().status()

    def serve(self, link: WorkerLink) -> None:
        """Let requests through to a worker."""
        self.link = link
        self.board.publish(describe(State(phase=Phase.READY, wanted=True, generation=5), 0.0, None))


async def leave(address: Address, random: Random, *, queued: bool) -> None:
    """Ask one of the APIs, see a part of the answer or nothing of it, and leave."""
    path = random.choice(list(REQUESTS))
    stream = random.random() < 0.7
    async with connected(address) as client:
        await client.ask("POST", path, REQUESTS[path] | {"stream": stream})
        if stream and not queued and random.random() < 0.7:
            await client.until(b"\n\n" if random.random() < 0.5 else b"w")
        elif random.random() < 0.5:
            await asyncio.sleep(random.random() * 0.05)
        client.drop()


@dataclass(frozen=True)
class Held:
    """What this process holds on to."""

    tasks: int
    descriptors: int


async def held(address: Address) -> Held:
    """What there is now, once a request was served: what is made once is made then."""
    async with connected(address) as client:
        await client.ask("GET", "/livez")
        await client.reply()
    async with connected(address) as client:
        await client.ask("GET", "/livez")
        await client.reply()
        return Held(len(asyncio.all_tasks()), psutil.Process().num_fds())


async def until_held(address: Address, before: Held) -> None:
    """Wait until nothing more is held than before. The server hears of an end a little after its client."""
    with anyio.fail_after(20):
        while (now := await held(address)).tasks != before.tasks or now.descriptors > before.descriptors:
            assert now.tasks >= before.tasks, "the work has ended that was there before"


async def crowd(address: Address, random: Random, count: int, *, queued: bool) -> None:
    """So many clients, `AT_ONCE` at a time."""
    for _ in range(count // AT_ONCE):
        await asyncio.gather(*(leave(address, random, queued=queued) for _ in range(AT_ONCE)))


@pytest.mark.timeout(60 + DISCONNECTS // 10)
async def test_nothing_stays_of_clients_that_leave(live: Live) -> None:
    """Queued, in prefill or in decode: the worker is told, and tasks, descriptors, mailboxes and counts go back."""
    random = Random(SEED)
    async with live(SLOW) as alive:
        await alive.until(Greeted)
        real = Real()
        async with serving(real) as address:
            gc.collect()  # what earlier tests left would be closed at any time, and fewer descriptors hide a leak
            before = await held(address)
            await crowd(address, random, DISCONNECTS // 3, queued=True)
            await until_held(address, before)
            assert real.dispatch.tally.waiting == real.dispatch.tally.running == 0

            real.serve(alive.link)
            await crowd(address, random, DISCONNECTS - DISCONNECTS // 3, queued=False)
            await until_held(address, before)

        with anyio.fail_after(20):
            await alive.link.idle()
            while (await alive.link.call(Statistics(), Figures)).running:
                continue  # the worker hears of the last cancel between two tokens
        tally = real.dispatch.tally
        assert alive.link.running == 0
        assert (tally.waiting, tally.running, tally.failed) == (0, 0, 0)
        assert tally.served + tally.cancelled > DISCONNECTS // 4  # some left before they were heard
