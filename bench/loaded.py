"""How long a restart takes that restores three long prefixes, beside a bare process that only loads the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import peer
from stoker.bench import subject
from stoker.bench.prompts import system_prompt
from stoker.bench.report import Check, Ratio, Section, Series
from stoker.bench.subject import Course

PREFIXES = 3
TOKENS = 2000
MOST = 1.3
"""Times the floor that a restart may take."""

METHOD = (
    f"{PREFIXES} prompts in the configuration (`[[warmup]]`), computed and saved once. Then, in turns: the floor, a "
    "bare Python that imports mlx-lm and loads the same model; and `restart` over the control socket, from the order "
    "to the ready of the next generation, all prefixes warm. Where memory allows two workers the old one serves till "
    "then; else there are phases in between, as `watch` pushes them."
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How often, and how long the prompts are."""

    repeats: int
    tokens: int = TOKENS


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was measured, in turns.

    Attributes:
        tokens: Of all prefixes together.
        floor: Seconds of the bare process.
        restarts: Of the worker.
    """

    tokens: int
    floor: list[float] = field(default_factory=list)
    restarts: list[Course] = field(default_factory=list)


def configuration(tokens: int) -> str:
    """Of a daemon that warms the prompts."""
    prompts = [system_prompt(tokens, f"restored, prompt {number}") for number in range(1, PREFIXES + 1)]
    return "\n".join(f'[[warmup]]\nname = "bench-{at}"\nsystem = "{text}"\n' for at, text in enumerate(prompts, 1))


def run_loaded(
    home: Path, model: Path, settings: Mapping[str, str], plan: Plan, say: Callable[[str], None]
) -> Loaded:
    """Warm and save, then restart in turns with the floor."""
    home.mkdir()
    (home / "config.toml").write_text(configuration(plan.tokens), encoding="utf-8")
    say(f"restart with {PREFIXES} prefixes of {plan.tokens} tokens: computing them once")
    where = {} if settings.get("STOKER_MODEL") != "embedded" else {"STOKER_MODEL": str(model)}
    with subject.running(home, {**settings, **where} | subject.SETTINGS) as daemon:
        prefixes = daemon.wait_ready().ready.warmup.prefixes
        daemon.wait_saved(PREFIXES)
        found = Loaded(sum(prefix.tokens for prefix in prefixes))
        for index in range(plan.repeats):
            say(f"restart with {PREFIXES} prefixes: {index + 1} of {plan.repeats}")
            found.floor.append(peer.load_floor(model, home / "floor.log"))
            found.restarts.append(daemon.restart())
    return found


def loaded_section(found: Loaded) -> Section:
    """The table."""
    floor = Series.of(found.floor)
    whole = Series.of(course.seconds for course in found.restarts)
    ratio = Ratio.of(whole, floor)
    parts = [course.phases() for course in found.restarts]
    names = dict.fromkeys(name for part in parts for name in part)
    series = {name: Series.of(part[name] for part in parts if name in part) for name in names}
    restored = sum(_is_restored(course) for course in found.restarts)
    what = f"restart with {PREFIXES} prefixes, {found.tokens} tokens"
    return Section(
        key="loaded",
        title="Restart with restored prefixes",
        method=METHOD,
        header=("what", "seconds", "x floor"),
        rows=(
            ("bare process, model loaded", str(floor), ""),
            (what, str(whole), str(ratio)),
            *((f"- {name}", str(one), "") for name, one in series.items() if len(series) > 1),
        ),
        data={"floor": floor.data(), "restart": whole.data(), "tokens": found.tokens, "to_floor": ratio.data()},
        checks=(
            Check("all prefixes restored at each restart", f"{restored} of {len(parts)}", restored == len(parts)),
            Check(f"{what}: at most {MOST:g}x the floor", str(ratio), ratio.median <= MOST, target=True),
        ),
    )


def _is_restored(course: Course) -> bool:
    prefixes = [prefix for prefix in course.ready.warmup.prefixes if prefix.name.startswith("bench-")]
    return len(prefixes) == PREFIXES and all(prefix.source == "restored" for prefix in prefixes)
