"""How long until ready: a fresh daemon, and a worker that was killed; beside them the floor, a bare process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import peer
from bench.rest import IDLE_TARGET, Rest, at_rest
from stoker.bench import subject
from stoker.bench.report import Check, Json, Ratio, Section, Series
from stoker.bench.subject import Course, Subject
from stoker.daemon.lifecycle import Policy

HEALTHY_AFTER = Policy().healthy_after
"""Seconds ready after which the daemon replaces a dead worker at once; a younger one only after a pause."""

METHOD = (
    "Default settings, model already converted, the standard prompt on disk since the first start, files in the page "
    "cache; a fresh daemon for each repeat, so that none has a history of crashes. Started: from spawning `stoker "
    "run` to ready, warm with the standard prompt. "
    "Killed: from kill -9 of the warm worker to the next generation's ready, warm again, as pushed by `watch` on the "
    f"control socket. A worker is healthy after {HEALTHY_AFTER:g} s of ready and then replaced at once; a new one "
    "after a pause. Floor: a bare Python that imports mlx-lm and loads the same model."
)

WORDS = {
    "ready": "death noticed",
    "backoff": "pause before the restart",
    "starting": "process up, hello",
    "loading": "mlx imported, model loaded",
    "warming": "standard prompt warmed",
}

IDLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How often, and whether to wait until workers count as healthy before they are killed."""

    repeats: int
    healthy: bool = True


@dataclass(frozen=True, slots=True)
class Starts:
    """What was measured, in the order of the repeats.

    Attributes:
        floor: Seconds of the bare process.
        started: Daemons.
        healthy: After workers that had been ready for long.
        newborn: After workers that had just become ready.
        resting: Daemon and worker with nothing to do.
    """

    floor: list[float] = field(default_factory=list)
    started: list[Course] = field(default_factory=list)
    healthy: list[Course] = field(default_factory=list)
    newborn: list[Course] = field(default_factory=list)
    resting: list[dict[str, Rest]] = field(default_factory=list)

    @property
    def killed(self) -> list[Course]:
        """Both kinds."""
        return self.healthy + self.newborn


def run_starts(
    home: Path, model: Path, settings: Mapping[str, str], plan: Plan, say: Callable[[str], None]
) -> Starts:
    """Start, kill the worker, stop; and the floor beside it."""
    found = Starts()
    for index in range(plan.repeats):
        say(f"start and restart: {index + 1} of {plan.repeats}")
        with subject.running(home, settings) as daemon:
            found.started.append(daemon.wait_ready())
            since = time.perf_counter()
            found.floor.append(peer.load_floor(model, home / "floor.log"))
            if plan.healthy:
                found.resting.append(_resting(daemon))
                time.sleep(max(0.0, since + HEALTHY_AFTER + 1.0 - time.perf_counter()))
                found.healthy.append(daemon.kill_worker())
            found.newborn.append(daemon.kill_worker())
    return found


def _resting(daemon: Subject) -> dict[str, Rest]:
    seconds = IDLE_SECONDS / 2
    return {"daemon": at_rest(daemon.pid, seconds), "worker": at_rest(daemon.worker_pid, seconds)}


def starts_section(found: Starts, further: tuple[Check, ...] = ()) -> Section:
    """The table; `further` checks are of the same runs."""
    floor = Series.of(found.floor)
    courses = {
        "daemon started, ready": found.started,
        "healthy worker killed, ready again": found.healthy,
        "new worker killed, ready again": found.newborn,
    }
    rows = [("bare process, model loaded", str(floor), "")]
    for name, some in courses.items():
        if some:
            rows += [(name, str(_series(some)), str(Ratio.of(_series(some), floor))), *_phase_rows(some)]
    named = {"started": found.started, "healthy_killed": found.healthy, "newborn_killed": found.newborn}
    return Section(
        key="starts",
        title="Time to ready",
        method=METHOD,
        header=("what", "seconds", "x floor"),
        rows=tuple(rows),
        data={"floor": floor.data()} | {name: _data(some) for name, some in named.items() if some},
        checks=(*_checks(found), *further),
    )


def _checks(found: Starts) -> tuple[Check, ...]:
    killed, warm = len(found.killed), sum(course.ready.warm for course in found.killed)
    direct = sum(course.ready.generation == course.transitions[0].generation + 1 for course in found.killed)
    resting = [
        Check(
            f"no CPU when idle: {who}, with the model loaded", f"{rest.cpu:.2%}", rest.cpu <= IDLE_TARGET, target=True
        )
        for one in found.resting[:1]
        for who, rest in one.items()
    ]
    return (
        Check("after kill -9, warm without anyone asking", f"{warm} of {killed}", warm == killed),
        Check("it is the very next generation", f"{direct} of {killed}", direct == killed),
        *resting,
    )


def _series(courses: list[Course]) -> Series:
    return Series.of(course.seconds for course in courses)


def _phases(courses: list[Course]) -> dict[str, Series]:
    """Time in each phase, over those courses that went through it."""
    spent = [course.phases() for course in courses]
    names = dict.fromkeys(name for phases in spent for name in phases)
    return {name: Series.of(phases[name] for phases in spent if name in phases) for name in names}


def _phase_rows(courses: list[Course]) -> list[tuple[str, str, str]]:
    """Parts of the row above them. What comes before the first phase seen is the daemon's own start."""
    rows = [(f"- {WORDS.get(name, name)}", str(series), "") for name, series in _phases(courses).items()]
    if courses[0].transitions[0].phase == "ready":
        return rows
    up = Series.of(course.transitions[0].at for course in courses)
    return [("- daemon up, control socket answers", str(up), ""), *rows]


def _data(courses: list[Course]) -> Json:
    phases = {name: series.data() for name, series in _phases(courses).items()}
    return _series(courses).data() | {"phases": phases}
