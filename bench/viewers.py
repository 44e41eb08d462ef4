"""What the status page's viewers cost: CPU of the gateway with none, one and many.

usage: python bench/viewers.py [--viewers 100] [--seconds 20]

The gateway runs in a process of its own, over a backend that decodes without a model; the viewers
are in this one. A core is 100 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fakes.http import serving
from tests.fakes.page_stage import afternoon

TOKENS_PER_SECOND = 100


async def serve(link: Connection) -> None:
    """The gateway, until killed; its live requests decode as fast as a good machine does."""
    shown = afternoon()
    async with serving(shown) as address:
        link.send(address.port)
        while True:
            await asyncio.sleep(1 / TOKENS_PER_SECOND)
            for row in shown.insight.records.live:
                row.tokens(1)


def child(link: Connection) -> None:
    """Entry of the gateway's process."""
    asyncio.run(serve(link))


heard = 0
"""Bytes that viewers got, all together: a viewer that hears nothing costs nothing."""


async def watch(port: int) -> None:
    """One viewer, who reads all."""
    global heard  # noqa: PLW0603 - one number for a whole program
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        while got := await reader.read(1 << 16):
            heard += len(got)
    finally:
        writer.close()


@asynccontextmanager
async def watched(port: int, viewers: int) -> AsyncIterator[None]:
    """So many viewers inside the block."""
    tasks = [asyncio.create_task(watch(port)) for _ in range(viewers)]
    try:
        await asyncio.sleep(2)  # until all have had their first events
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def share(process: psutil.Process, seconds: float) -> float:
    """Percent of a core that the gateway takes."""
    before, at = used(process), time.perf_counter()
    await asyncio.sleep(seconds)
    return 100 * (used(process) - before) / (time.perf_counter() - at)


def used(process: psutil.Process) -> float:
    """CPU seconds so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def measure(port: int, process: psutil.Process, viewers: int, seconds: float) -> dict[str, float]:
    """Shares of a core without viewers, with one, and with all."""
    found = {"none": await share(process, seconds)}
    for count in (1, viewers):
        async with watched(port, count):
            found[str(count)] = await share(process, seconds)
    return {name: round(value, 2) for name, value in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    gateway = multiprocessing.get_context("spawn").Process(target=child, args=(theirs,), daemon=True)
    gateway.start()
    try:
        shares = asyncio.run(measure(ours.recv(), psutil.Process(gateway.pid), options.viewers, options.seconds))
    finally:
        gateway.kill()
        gateway.join()
    print(json.dumps({"percent_of_a_core": shares, "megabytes_heard": round(heard / 1e6, 2)}))


if __name__ == "__main__":
    main()
