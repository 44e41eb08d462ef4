"""What the gateway costs: many streams through one daemon, over a fake worker that sends one step for all of them.

python bench/gateway_ceiling.py            everything, about a minute; keep the machine quiet
python bench/gateway_ceiling.py --quick    does it work?
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # run as a script, Python knows this folder, not its parent

from bench import daemon_cost  # noqa: E402 - after the line above
from stoker.bench import subject  # noqa: E402 - after the line above
from stoker.bench.children import BenchmarkError, clean_environment, own_folder  # noqa: E402
from stoker.bench.machine import machine, versions  # noqa: E402
from stoker.bench.report import Check, Json, Report, Section, Series  # noqa: E402
from stoker.bench.tables import show  # noqa: E402
from stoker.daemon.environment import find_openblas  # noqa: E402
from tests.fakes.fake_scenario import COMMAND  # noqa: E402

CEILING = 20_000
"""Deltas per second that one core is to carry."""
SHARE_TARGET = 0.05
"""Of one core at 200 tokens/s."""
FIRST_TARGET = 1e-3
"""Seconds that the daemon may add to the time to the first token."""
GRACE = 120.0
"""Seconds beyond the time that the worker takes by itself."""

METHOD = (
    "A fake worker advances all streams together, one message per step, as a batch does. The client is a process of "
    "its own on raw connections. CPU is the daemon's, user and system, from the moment when every stream has begun "
    "to the last one's end. Events are fewer than tokens where a client is slower than the worker: what it has not "
    "read yet is joined. Carried by one core: events divided by the daemon's CPU time."
)


@dataclass(frozen=True, slots=True)
class Load:
    """So many streams, each of so many tokens, all advanced so many times per second."""

    name: str
    streams: int
    tokens: int
    rate: float


LOADS = (
    Load("200 tokens/s", 8, 500, 25),
    Load("20,000 deltas/s", 200, 1000, 100),
    Load("as fast as it goes", 200, 2000, 100_000),
)
QUICK = (Load("200 tokens/s", 8, 50, 25), Load("20,000 deltas/s", 200, 100, 100))


@dataclass(frozen=True, slots=True)
class Carried:
    """What came of a load; times in seconds."""

    load: Load
    seconds: float
    events: int
    tokens: int
    cpu: float
    first: Series

    @property
    def share(self) -> float:
        """Of one core."""
        return self.cpu / self.seconds

    @property
    def per_core(self) -> float:
        """Events for each second of CPU time."""
        return self.events / self.cpu

    def row(self) -> tuple[str, ...]:
        """Of the table."""
        return (
            self.load.name,
            f"{self.tokens / self.seconds:,.0f}",
            f"{self.events / self.seconds:,.0f}",
            str(Series((self.cpu / self.events,))),
            f"{self.share:.1%}",
            f"{self.per_core:,.0f}",
            str(Series((self.first.median,))),
        )

    def data(self) -> Json:
        """For JSON."""
        return {
            "streams": self.load.streams,
            "seconds": self.seconds,
            "events": self.events,
            "tokens": self.tokens,
            "cpu": self.cpu,
            "first": self.first.data(),
        }


def carry(load: Load) -> Carried:
    """Run one load against a daemon of its own."""
    batch = {"steps_per_second": load.rate, "wait_for": load.streams}
    settings = {
        "STOKER_WORKER_COMMAND": ",".join(COMMAND),
        "FAKE_WORKER": json.dumps({"generate": {"batch": batch}}),
    }
    with own_folder() as home, subject.running(home, settings) as daemon:
        daemon.wait_ready()
        port = daemon.status().http.rpartition(":")[2]
        process = psutil.Process(daemon.pid)
        with _client(port, load) as client:
            _expect(client, "open")
            before = _cpu(process)
            seen: dict[str, Any] = json.loads(_expect(client, "{"))
            cpu = _cpu(process) - before
    return Carried(load, seen["seconds"], seen["events"], seen["tokens"], cpu, Series.of(seen["first"]))


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def _client(port: str, load: Load) -> Iterator[subprocess.Popen[str]]:
    deadline = load.tokens / load.rate + GRACE
    script = str(ROOT / "bench" / "stream_load.py")
    command = [sys.executable, script, port, str(load.streams), str(load.tokens), str(deadline)]
    with subprocess.Popen(command, env=clean_environment(), stdout=subprocess.PIPE, text=True) as client:
        try:
            yield client
        finally:
            client.kill()


def _expect(client: subprocess.Popen[str], beginning: str) -> str:
    line = client.stdout.readline() if client.stdout else ""
    if not line.startswith(beginning):
        raise BenchmarkError(f"the client said {line!r} instead of {beginning!r}")
    return line


def ceiling_section(loads: Sequence[Load]) -> Section:
    """All loads."""
    carried = [carry(load) for load in loads]
    everyday, most = carried[0], carried[1]
    share, cores = f"{everyday.share:.1%}", f"{most.per_core:,.0f}"
    whole = all(one.tokens >= one.load.streams * one.load.tokens * 0.9 for one in carried)
    return Section(
        key="ceiling",
        title="Streams through one daemon",
        method=METHOD,
        header=("load", "tokens/s", "events/s", "CPU per event", "CPU", "events/s by one core", "first event"),
        rows=tuple(one.row() for one in carried),
        data={one.load.name: one.data() for one in carried},
        checks=(
            Check("what was sent arrived", "yes" if whole else "no", whole),
            Check(f"one core carries {CEILING:,} events/s", cores, most.per_core >= CEILING, target=True),
            Check("under 5 % of a core at 200 tokens/s", share, everyday.share < SHARE_TARGET, target=True),
        ),
    )


def first_section(plan: daemon_cost.Plan) -> Section:
    """The daemon's part of the time to the first token, one request at a time."""
    with own_folder() as home:
        section = daemon_cost.overhead_section(home, plan, lambda _what: None)
    added = section.data["first"]["overhead"]["median"]
    check = Check("under 1 ms added to the first token", str(Series((added,))), added < FIRST_TARGET, target=True)
    return Section(
        section.key,
        section.title,
        section.method,
        section.header,
        section.rows,
        section.data,
        (*section.checks, check),
    )


def main() -> int:
    """Measure, show, write; the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    options.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    given = options.parse_args()
    facts: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(find_openblas()),
        "versions": versions(),
        "quick": given.quick,
    }
    started = time.monotonic()
    cost = daemon_cost.QUICK if given.quick else daemon_cost.Plan()
    sections = [first_section(cost), ceiling_section(QUICK if given.quick else LOADS)]
    report = Report("python bench/gateway_ceiling.py", facts, sections)
    show(report, Console(width=150))
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    if given.json:
        given.json.write_text(json.dumps(report.data(), indent=1) + "\n", encoding="utf-8")
    return 0 if report.correct else 1


if __name__ == "__main__":
    sys.exit(main())
