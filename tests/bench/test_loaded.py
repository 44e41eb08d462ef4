"""Restarts with restored prefixes: the configuration, and what is concluded."""

from __future__ import annotations

import tomllib
from pathlib import Path

from bench.loaded import PREFIXES, Loaded, configuration, loaded_section
from stoker.bench.subject import Course, Transition
from stoker.daemon.warmups import read_warmups
from stoker.ipc.control_messages import PrefixStatus, Readiness, WarmupStatus


def course(seconds: float, source: str = "restored") -> Course:
    prefixes = tuple(
        PrefixStatus(name=f"bench-{number}", tokens=2000, tokens_warm=2000, source=source, seconds=0.1)
        for number in range(1, PREFIXES + 1)
    )
    warmup = WarmupStatus(outcome="succeeded", seconds=0.3, prefixes=prefixes)
    ready = Readiness(ready=True, phase="ready", warm=True, reason=None, generation=2, since=0.0, warmup=warmup)
    steps = ((0.0, "stopping", 1), (0.1, "loading", 2), (seconds, "ready", 2))
    return Course(tuple(Transition(*step) for step in steps), ready)


def test_the_configuration_is_one() -> None:
    """A daemon takes it: three different prompts under names of ours."""
    prefixes = read_warmups(tomllib.loads(configuration(100))["warmup"], Path())

    assert [prefix.name for prefix in prefixes] == ["bench-1", "bench-2", "bench-3"]
    assert len({prefix.system for prefix in prefixes}) == PREFIXES


def test_the_floor_is_beside_it() -> None:
    """The table has the floor, the restart with its ratio, and the phases; both promises are judged."""
    section = loaded_section(Loaded(6000, [2.0, 2.0], [course(2.4), course(2.6)]))

    assert [row[0] for row in section.rows][:2] == [
        "bare process, model loaded",
        "restart with 3 prefixes, 6000 tokens",
    ]
    assert section.rows[1][2].startswith("1.25x")
    assert [(check.ok, check.target) for check in section.checks] == [(True, False), (True, True)]


def test_what_was_computed_again_is_wrong() -> None:
    """A restart that did not restore all of them fails the run; one that was slow only misses the mark."""
    section = loaded_section(Loaded(6000, [1.0], [course(2.4, source="prefilled")]))

    assert [(check.ok, check.target) for check in section.checks] == [(False, False), (False, True)]
