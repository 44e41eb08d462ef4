"""What the status page costs: until something is to be seen, and for each who leaves it open. See docs/benchmarks.md.

python bench/page.py
python bench/page.py --help
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

sys.path[0] = str(Path(__file__).resolve().parents[1])  # run as a script, Python knows this folder, not its parent

from bench import command  # noqa: E402 - after the line above
from stoker.bench.children import BenchmarkError  # noqa: E402
from stoker.bench.progress import Say  # noqa: E402
from stoker.bench.report import Check, Section, Series  # noqa: E402
from tests.fakes.browser import CHROMIUM, FLAGS  # noqa: E402
from tests.fakes.http import serving  # noqa: E402
from tests.fakes.page_stage import afternoon  # noqa: E402

TOKENS_PER_SECOND = 100
"""Of the requests that the page shows meanwhile."""
SETTLE = 2.0
"""Seconds until all viewers have had their first events."""
PAINT_TARGET = 0.2
SIZE_TARGET = 150_000
SHARE_TARGET = 0.03
"""Of one core, for all viewers."""
LOADS_TIMEOUT = 30_000.0
"""Milliseconds for the page to be shown."""

PAINT_METHOD = (
    "Headless Chromium loads the page over loopback, each time without a cache, from a gateway in a process of its "
    "own that shows requests as they decode. Painted: from the beginning of the navigation, as the browser tells "
    "(`first-contentful-paint`). Bytes are those of the page and everything that it loads, uncompressed."
)
VIEWERS_METHOD = (
    "The same gateway with nobody, one and many reading the page's events. CPU is the gateway's, user and system."
)


# -- the gateway, in a process of its own ----------------------------------------------------------------------


async def serve(link: Connection) -> None:
    """Until killed; its live requests decode as fast as a good machine does."""
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


@contextmanager
def gateway() -> Iterator[tuple[int, psutil.Process]]:
    """Its port and its process while the block runs.

    Raises:
        BenchmarkError: It did not come up.
    """
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=child, args=(theirs,), daemon=True)
    process.start()
    try:
        if not ours.poll(30):
            raise BenchmarkError("the gateway did not come up within 30 s")
        yield ours.recv(), psutil.Process(process.pid)
    finally:
        process.kill()
        process.join()


# -- until something is to be seen -----------------------------------------------------------------------------

LOOK = """() => {
  const loaded = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return {
    painted: paint ? paint.startTime / 1000 : null,
    bytes: loaded.reduce((sum, entry) => sum + entry.decodedBodySize, 0),
    files: loaded.filter((entry) => entry.decodedBodySize > 0).length,
  };
}"""
"""What the browser tells of the page that it shows."""


def paint_section(port: int, loads: int, say: Say) -> Section:
    """Load the page so many times, and once more before, for what a browser does only once."""
    found = [look for index, look in enumerate(_loaded(port, loads + 1, say)) if index]
    painted = Series.of(float(look["painted"]) for look in found)
    size = max(int(look["bytes"]) for look in found)
    return Section(
        key="paint",
        title="The status page, from loopback",
        method=PAINT_METHOD,
        header=("painted", "bytes in all", "files"),
        rows=((str(painted), f"{size / 1000:.0f} KB", str(found[-1]["files"])),),
        data={"painted": painted.data(), "bytes": size},
        checks=(
            Check("painted within 200 ms", str(painted), painted.median <= PAINT_TARGET, target=True),
            Check("less than 150 KB in all", f"{size / 1000:.0f} KB", size < SIZE_TARGET),
        ),
    )


def _loaded(port: int, loads: int, say: Say) -> Iterator[dict[str, Any]]:
    if CHROMIUM is None:
        raise BenchmarkError("there is no Chromium: apt-get install chromium, or --only viewers")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only here, and it takes long

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            for index in range(loads):
                say(f"loading the page, {index + 1} of {loads}")
                context = browser.new_context()  # nothing cached
                page = context.new_page()
                page.goto(f"http://127.0.0.1:{port}/", timeout=LOADS_TIMEOUT)
                page.wait_for_selector("#live:not([hidden])", timeout=LOADS_TIMEOUT)
                page.wait_for_function(
                    "performance.getEntriesByName('first-contentful-paint').length > 0", timeout=LOADS_TIMEOUT
                )
                yield page.evaluate(LOOK)
                context.close()
        finally:
            browser.close()


# -- who leaves it open ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Viewers:
    """So many readers of the page's events; `heard` counts the bytes: who hears nothing costs nothing."""

    port: int
    heard: int = 0

    async def watch(self) -> None:
        """One viewer, who reads all."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            while got := await reader.read(1 << 16):
                self.heard += len(got)
        finally:
            writer.close()

    @asynccontextmanager
    async def watching(self, count: int) -> AsyncIterator[None]:
        """So many inside the block."""
        tasks = [asyncio.create_task(self.watch()) for _ in range(count)]
        try:
            await asyncio.sleep(SETTLE)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _share(process: psutil.Process, seconds: float) -> float:
    """Of a core, over so many seconds."""
    before, at = _used(process), time.perf_counter()
    await asyncio.sleep(seconds)
    return (_used(process) - before) / (time.perf_counter() - at)


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _shares(port: int, process: psutil.Process, plan: Plan, say: Say) -> dict[int, tuple[float, int]]:
    """By the number of viewers: share of a core, and bytes that they heard."""
    found = {}
    for count in (0, 1, plan.viewers):
        say(f"{count} viewers, for {plan.seconds:g} s")
        viewers = Viewers(port)
        async with viewers.watching(count):
            found[count] = (await _share(process, plan.seconds), viewers.heard)
    return found


def viewers_section(port: int, process: psutil.Process, plan: Plan, say: Say) -> Section:
    """Measure it, and make the table."""
    found = asyncio.run(_shares(port, process, plan, say))
    share, heard = found[plan.viewers]
    more = share - found[0][0]
    return Section(
        key="viewers",
        title="Viewers of the status page",
        method=VIEWERS_METHOD,
        header=("viewers", "CPU", "heard"),
        rows=tuple((str(count), f"{cpu:.2%}", f"{size / 1000:.0f} KB") for count, (cpu, size) in found.items()),
        data={str(count): {"share": cpu, "heard": size} for count, (cpu, size) in found.items()},
        checks=(
            Check("viewers hear something", f"{heard} bytes", heard > 0),
            Check(
                f"{plan.viewers} viewers cost under 3 % of a core", f"{more:.2%}", more < SHARE_TARGET, target=True
            ),
        ),
    )


# -- the command -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    only: tuple[str, ...]
    loads: int
    viewers: int
    seconds: float


def parser() -> argparse.ArgumentParser:
    """All options."""
    options = argparse.ArgumentParser(
        prog="bench/page.py", description="Measures what the status page costs: until it is painted, and its viewers."
    )
    options.add_argument("--only", choices=("paint", "viewers"), nargs="+", default=("paint", "viewers"))
    options.add_argument("--repeats", type=command.count, help="loads of the page (default 10)")
    options.add_argument("--viewers", type=command.count, default=100, help="at once (default 100)")
    options.add_argument("--quick", action="store_true", help="to see that it works")
    options.add_argument("--json", type=Path, metavar="PATH", help="default: bench/results/page-DATE.json")
    options.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown too")
    return options


def run(options: argparse.Namespace, say: Say) -> list[Section]:
    """Measure."""
    plan = Plan(
        only=tuple(options.only),
        loads=options.repeats or (1 if options.quick else 10),
        viewers=options.viewers,
        seconds=2.0 if options.quick else 20.0,
    )
    with gateway() as (port, process):
        parts: dict[str, Callable[[], Section]] = {
            "paint": lambda: paint_section(port, plan.loads, say),
            "viewers": lambda: viewers_section(port, process, plan, say),
        }
        return [part() for name, part in parts.items() if name in plan.only]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show, write; the exit code."""

    def measure(_home: Path, options: argparse.Namespace, say: Say) -> list[Section]:
        return run(options, say)

    return command.benchmark("page", parser(), measure, {}, arguments)


if __name__ == "__main__":
    sys.exit(main())
