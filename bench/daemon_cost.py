"""What the daemon itself costs: time, memory, CPU; with a fake worker that answers at once, so no model is needed.

python bench/daemon_cost.py            everything, about a minute
python bench/daemon_cost.py --quick    does it work?
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # run as a script, Python knows this folder, not its parent

from bench import direct  # noqa: E402 - after the line above
from bench.control_load import hear_ready, time_connects, time_queries, watching  # noqa: E402
from bench.rest import IDLE_TARGET, Rest, at_rest, memory  # noqa: E402
from stoker.bench import subject  # noqa: E402 - after the line above
from stoker.bench.children import clean_environment  # noqa: E402
from stoker.bench.report import Check, Difference, Section, Series  # noqa: E402
from stoker.bench.stopwatch import Answer, StreamClient, chat  # noqa: E402
from stoker.bench.subject import Subject  # noqa: E402
from stoker.daemon.gateway.openai.request import read_chat  # noqa: E402
from tests.fakes.fake_scenario import COMMAND  # noqa: E402

ANSWER_TOKENS = 50
WARM_UP = 20
"""Requests and queries before the first that counts."""

QUERY_TARGET = 1e-3
MEMORY_TARGET = 80 << 20

OVERHEAD_METHOD = (
    "A fake worker answers at once with 50 tokens, each in a message of its own. The same request to the daemon over "
    "HTTP (one kept connection, streamed) and to such a worker directly over its socket, in turns. The daemon's part "
    "is the difference of the medians; it includes HTTP's own cost, and the client's."
)
CONTROL_METHOD = (
    "Raw Unix sockets, one query at a time. Watchers: connections that have asked `watch`. Told of a restart: from "
    "asking for a restart of the fake worker to each watcher's having read the next generation's ready. Memory is "
    "the daemon's resident set. Idle: CPU time and wake-ups of the daemon when nobody asks anything."
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    requests: int = 300
    queries: int = 2000
    watchers: int = 1000
    idle_seconds: float = 10.0


QUICK = Plan(requests=20, queries=100, watchers=50, idle_seconds=1.0)


@contextmanager
def fake_daemon(home: Path) -> Iterator[Subject]:
    """The real daemon over a fake worker, ready."""
    with subject.running(home, {"STOKER_WORKER_COMMAND": ",".join(COMMAND)}) as daemon:
        daemon.wait_ready()
        yield daemon


# -- overhead ------------------------------------------------------------------------------------------------


def overhead_section(home: Path, plan: Plan, say: Callable[[str], None]) -> Section:
    """Through the daemon, and past it."""
    say(f"overhead: {plan.requests} requests, through the daemon and past it")
    with fake_daemon(home) as daemon, direct.running(COMMAND, clean_environment(), home) as worker:
        client = StreamClient(daemon.status().http)
        through, past = _both(client, worker, WARM_UP + plan.requests)
        client.close()
    return _overhead(through[WARM_UP:], past[WARM_UP:])


def _both(client: StreamClient, worker: direct.DirectWorker, count: int) -> tuple[list[Answer], list[Answer]]:
    request = chat("Be brief.", "Hello", ANSWER_TOKENS)
    body = read_chat(json.dumps(request).encode()).body
    pairs = [(client.ask(request), worker.ask(body)) for _ in range(count)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def _overhead(through: list[Answer], past: list[Answer]) -> Section:
    times = {
        "first token": (Series.of(a.first for a in through), Series.of(a.first for a in past)),
        f"whole answer of {ANSWER_TOKENS} tokens": (
            Series.of(a.total for a in through),
            Series.of(a.total for a in past),
        ),
    }
    same = {answer.text for answer in through} == {answer.text for answer in past}
    rows = [
        (what, *_tail(http), *_tail(bare), str(Difference.of(http, bare))) for what, (http, bare) in times.items()
    ]
    return Section(
        key="overhead",
        title="The daemon's own overhead",
        method=OVERHEAD_METHOD,
        header=("until", "through the daemon", "p99", "directly", "p99", "the daemon's part"),
        rows=tuple(rows),
        data={
            name: {"through": http.data(), "direct": bare.data(), "overhead": Difference.of(http, bare).data()}
            for name, (http, bare) in zip(("first", "total"), times.values(), strict=True)
        },
        checks=(Check("both ways give the same text", "yes" if same else "no", same),),
    )


def _tail(series: Series) -> tuple[str, str]:
    return str(Series((series.median,), series.unit)), str(Series((series.percentile(0.99),), series.unit))


# -- the control socket, memory, CPU ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """The daemon with some number of watchers."""

    queries: Series
    connects: Series
    memory: Series
    idle: Rest


def _load(daemon: Subject, plan: Plan) -> Load:
    time_queries(daemon.control, WARM_UP)
    queries = Series.of(time_queries(daemon.control, plan.queries))
    connects = Series.of(time_connects(daemon.control, plan.queries))
    resting = at_rest(daemon.pid, plan.idle_seconds)
    return Load(queries, connects, Series.of([memory(daemon.pid)], "B"), resting)


@dataclass(frozen=True, slots=True)
class Told:
    """How a restart reached the watchers."""

    times: Series
    same: bool
    """All heard of the same phases."""
    phases: int


def control_section(home: Path, plan: Plan, say: Callable[[str], None]) -> Section:
    """Queries, watchers, memory, CPU."""
    with fake_daemon(home) as daemon:
        say(f"control socket: {plan.queries} queries, nobody else")
        alone = _load(daemon, plan)
        say(f"control socket: {plan.queries} queries beside {plan.watchers} watchers")
        with watching(daemon.control, plan.watchers) as watchers:
            crowded = _load(daemon, plan)
            say(f"control socket: a restart, told to {plan.watchers} watchers")
            generation = daemon.status().generation + 1
            start = time.perf_counter()
            daemon.ask(lambda client: client.restart())
            at, heard = hear_ready(watchers, generation)
    told = Told(
        Series.of(moment - start for moment in at), all(phases == heard[0] for phases in heard), len(heard[0])
    )
    return _control(alone, crowded, told, plan.watchers)


def _control(alone: Load, crowded: Load, told: Told, watchers: int) -> Section:
    loads = {0: alone, watchers: crowded}
    rows = [
        (
            f"{count} watchers",
            *_tail(load.queries),
            *_tail(load.connects),
            str(load.memory),
            f"{load.idle.cpu:.2%}",
            f"{load.idle.wakeups:.1f}/s",
        )
        for count, load in loads.items()
    ]
    rows.append(("told of a restart", *_tail(told.times), "", "", "", "", ""))
    return Section(
        key="control",
        title="Control socket, memory, idle CPU",
        method=CONTROL_METHOD,
        header=("", "ready query", "p99", "connect + query", "p99", "memory", "idle CPU", "wake-ups"),
        rows=tuple(rows),
        data={
            "loads": [{"watchers": count} | _load_data(load) for count, load in loads.items()],
            "told": told.times.data() | {"phases": told.phases},
        },
        checks=_control_checks(loads, told, watchers),
    )


def _load_data(load: Load) -> dict[str, object]:
    return {
        "ready": load.queries.data(),
        "connect_and_ready": load.connects.data(),
        "memory": load.memory.data(),
        "idle_cpu": load.idle.cpu,
        "idle_wakeups_per_second": load.idle.wakeups,
    }


def _control_checks(loads: dict[int, Load], told: Told, watchers: int) -> tuple[Check, ...]:
    checks = [Check(f"all {watchers} watchers are told of every phase", f"{told.phases} phases", told.same)]
    for count, load in loads.items():
        beside = f" beside {count} watchers" if count else ""
        fast, small = load.queries.median < QUERY_TARGET, load.memory.median < MEMORY_TARGET
        asleep = load.idle.cpu <= IDLE_TARGET
        checks += [
            Check(f"ready query under 1 ms{beside}", _tail(load.queries)[0], fast, target=True),
            Check(f"daemon under 80 MiB{beside}", str(load.memory), small, target=True),
            Check(f"no CPU when idle{beside}", f"{load.idle.cpu:.2%}", asleep, target=True),
        ]
    return tuple(checks)


if __name__ == "__main__":
    from bench.command import main

    sys.exit(main("daemon_cost"))
