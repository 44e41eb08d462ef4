"""Figures of survival, one daemon each: how soon a killed worker's successor is there; who is noticed, and spared."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import anyio
import psutil

from bench.chaos_faults import worker_pids
from bench.chaos_requests import Ask, Reply, ask
from bench.storms import SETTINGS
from stoker.bench import subject
from stoker.bench.children import BenchmarkError
from stoker.bench.report import Check, Section, Series
from stoker.bench.subject import Subject
from tests.fakes.fake_scenario import COMMAND

SPAWN_TARGET = 0.05
RESUME_TARGET = 1.3
WATCH = 2.0
"""Seconds without a sign of life that are allowed, in the two figures about silence."""


def _fake(scenario: object, **more: str) -> dict[str, str]:
    worker = {"STOKER_WORKER_COMMAND": ",".join(COMMAND), "FAKE_WORKER": json.dumps(scenario)}
    return {**SETTINGS, **worker, **more}


# -- coming back ---------------------------------------------------------------------------------------------


def comeback(home: Path, quick: bool) -> Section:
    """Kill -9 in the middle of a stream: until the next process, until ready, until the stream goes on."""
    repeats = 3 if quick else 20
    # A start takes half a second, as a small model's would.
    scenario = {"load": {"seconds": 0.5, "steps": 10}, "generate": {"tokens_per_second": 100}}
    # A worker that had been ready for long is replaced without a pause; these have not, so their pause must not grow.
    with subject.running(home, _fake(scenario, STOKER_BACKOFF_CAP_SEC="0.001")) as daemon:
        daemon.wait_ready()
        trials = [_come_back(daemon) for _ in range(repeats)]
    spawned, ready, resumed = (Series.of(times) for times in zip(*trials, strict=True))
    ratio = Series.of(
        (went_on / start for went_on, start in zip(resumed.values, ready.values, strict=True)), unit="x"
    )
    return Section(
        key="comeback",
        title="After kill -9 in the middle of a stream",
        method=(
            "A fake worker whose load takes half a second streams 100 tokens/s and is killed. Counted from the kill: "
            "until the next process exists (looked for each millisecond; the pause before a restart is set to 1 ms), "
            "until ready is published, and until the client reads the next piece of its answer."
        ),
        header=("from the kill until", "median (spread)"),
        rows=(("the next process", str(spawned)), ("ready", str(ready)), ("the stream goes on", str(resumed))),
        data={"spawned": spawned.data(), "ready": ready.data(), "resumed": resumed.data(), "ratio": ratio.data()},
        checks=(
            Check("spawned within 50 ms", str(spawned), spawned.median <= SPAWN_TARGET, target=True),
            Check("resumed within 1.3x of restart-to-ready", str(ratio), ratio.median <= RESUME_TARGET, target=True),
        ),
    )


def _come_back(daemon: Subject) -> tuple[float, float, float]:
    replies: list[Reply] = []
    what = Ask(user=1, seed=None, stream=True, max_tokens=100)
    url = daemon.status().http
    client = threading.Thread(target=lambda: replies.append(anyio.run(_alone, url, what)))
    client.start()
    time.sleep(0.3)  # in the middle of its second of stream; when exactly does not matter
    old = worker_pids(daemon.pid)
    spawned: list[float] = []
    looking = threading.Thread(target=lambda: spawned.extend(_next_process(daemon.pid, old)))
    looking.start()
    course = daemon.kill_worker()
    client.join()
    looking.join()
    if not replies or replies[0].trouble or not spawned:
        raise BenchmarkError(f"the stream did not survive: {replies}")
    return spawned[0], course.seconds, replies[0].pause


def _next_process(daemon: int, old: list[int]) -> Iterator[float]:
    died: float | None = None
    limit = time.perf_counter() + 30
    while time.perf_counter() < limit:
        now = worker_pids(daemon)
        if died is None and not set(now) & set(old):
            died = time.perf_counter()
        if set(now) - set(old):
            yield time.perf_counter() - (died or time.perf_counter())
            return
        time.sleep(0.001)


async def _alone(url: str, what: Ask) -> Reply:
    async with aiohttp.ClientSession() as session:
        return await ask(session, url, what)


# -- silence -------------------------------------------------------------------------------------------------


def silence(home: Path, quick: bool) -> Section:
    """A compute thread that falls silent in the middle of an answer, with a socket that lives."""
    repeats = 1 if quick else 10
    scenario = {"faults": [{"at": "generate", "step": 5, "do": "hang", "containing": "the 7th"}]}
    settings = _fake(
        {str(number): scenario for number in range(1, repeats + 1)} | {"default": {}},
        STOKER_NEXT_TOKEN_TIMEOUT_SEC=str(WATCH),
        STOKER_FIRST_TOKEN_TIMEOUT_SEC=str(WATCH),
    )
    with subject.running(home, settings) as daemon:
        daemon.wait_ready()
        times = Series.of(_noticed(daemon) for _ in range(repeats))
    late = times.high - WATCH
    return Section(
        key="silence",
        title="A silent compute thread",
        method=(
            f"Each worker but the last hangs after five tokens of an answer, its socket still read; {WATCH:g} s of "
            "silence are allowed. From the request until the daemon has ended the process."
        ),
        header=("silent until ended", "allowed"),
        rows=((str(times), f"{WATCH:g} s"),),
        data={"noticed": times.data(), "budget": WATCH},
        checks=(Check("noticed within its budget + 1 s", f"{late:+.2f} s at most", late <= 1.0),),
    )


def _noticed(daemon: Subject) -> float:
    process = psutil.Process(daemon.worker_pid)
    began = time.perf_counter()
    anyio.run(_until_ended, daemon.status().http, process)
    passed = time.perf_counter() - began
    daemon.ask(lambda client: client.wait_ready(30))
    return passed


async def _until_ended(url: str, process: psutil.Process) -> None:
    """Ask for what makes a worker hang, and leave when it was ended: the next one shall hang for the next trial."""
    what = Ask(user=7, seed=None, stream=True, max_tokens=32)
    async with aiohttp.ClientSession() as session, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, session, url, what)
        await anyio.to_thread.run_sync(process.wait, WATCH + 30)
        tasks.cancel_scope.cancel()


# -- patience ------------------------------------------------------------------------------------------------


def patience(home: Path, quick: bool) -> Section:
    """Prefills of ten times the budget that do report progress."""
    requests, seconds = (5, 3.0) if quick else (100, 10.0)
    budget = seconds / 10
    scenario = {"generate": {"prefill": {"seconds": seconds, "steps": 40}}}
    settings = _fake(
        scenario,
        STOKER_NEXT_TOKEN_TIMEOUT_SEC=str(budget),
        STOKER_FIRST_TOKEN_TIMEOUT_SEC=str(budget),
    )
    with subject.running(home, settings) as daemon:
        daemon.wait_ready()
        replies = anyio.run(_together, daemon.status().http, requests)
        generation = daemon.status().generation
    good = [reply for reply in replies if not reply.trouble]
    return Section(
        key="patience",
        title="Slow prefills that do progress",
        method=(
            f"{requests} requests, ten at a time, whose prefill takes {seconds:g} s in 40 steps; {budget:g} s of "
            "silence are allowed."
        ),
        header=("requests", "answered", "workers used"),
        rows=((str(requests), str(len(good)), str(generation)),),
        data={"requests": requests, "answered": len(good), "generations": generation, "budget": budget},
        checks=(
            Check(
                "no worker was killed", f"{generation - 1} were, {len(good)} answered",
                generation == 1 and len(good) == requests,
            ),
        ),
    )  # fmt: skip


async def _together(url: str, requests: int) -> list[Reply]:
    replies: list[Reply] = []
    limiter = anyio.CapacityLimiter(10)

    async def one(number: int) -> None:
        async with limiter:
            replies.append(await ask(session, url, Ask(number, None, stream=True, max_tokens=16)))

    async with aiohttp.ClientSession() as session, anyio.create_task_group() as tasks:
        for number in range(requests):
            tasks.start_soon(one, number)
    return replies
