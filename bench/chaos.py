"""Chaos: storms of kills, stops and restarts under load, and the figures that survival promises.

python bench/chaos.py                     everything: about 15 minutes on two quiet cores
python bench/chaos.py --quick             does it work? about a minute
python bench/chaos.py --only fake --requests 2000 --strikes 200 --seed 7

exit code: 0 all promises held; 1 one was broken (a figure not reached on a busy machine is none); 2 not measured
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # run as a script, Python knows this folder, not its parent

from bench import command  # noqa: E402 - after the line above
from bench import survival_figures as figures  # noqa: E402
from bench.chaos_faults import SIGNALS  # noqa: E402
from bench.command import count  # noqa: E402
from bench.storms import Plan, storm  # noqa: E402
from stoker.bench.progress import Say  # noqa: E402
from stoker.bench.report import Section  # noqa: E402
from tests.fakes.fake_scenario import COMMAND  # noqa: E402

FAKE = {"STOKER_WORKER_COMMAND": ",".join(COMMAND), "FAKE_WORKER": '{"generate": {"tokens_per_second": 400}}'}
"""Workers that answer without a model, at a pace at which a strike mostly finds them at work."""

KILLS = {"kill": 8, "term": 1, "abort": 1}
STORMS: Mapping[str, tuple[Plan, Plan]] = {
    "fake": (Plan("fake", 10_000, 1000, KILLS), Plan("fake", 60, 6, KILLS)),
    "tiny": (
        Plan("tiny", 500, 50, KILLS, clients=4, tokens=(60, 240)),
        Plan("tiny", 10, 1, KILLS, clients=4, tokens=(40, 160), early=0.0),
    ),
    "restarts": (
        Plan("restarts", 2000, 100, {"restart": 1}, early=0.0),
        Plan("restarts", 30, 2, {"restart": 1}, early=0.0),
    ),
    "in-place": (
        Plan("in-place", 2000, 100, {"restart": 1}, early=0.0),
        Plan("in-place", 30, 2, {"restart": 1}, early=0.0),
    ),
}
"""In full, and quick."""

FIGURES: Mapping[str, Callable[[Path, bool], Section]] = {
    "comeback": figures.comeback,
    "silence": figures.silence,
    "patience": figures.patience,
}

SECTIONS = (*STORMS, *FIGURES)


def kinds(text: str) -> Mapping[str, int]:
    """`kill=8,restart=1`."""
    try:
        pairs = dict(part.split("=") for part in text.split(","))
        given = {name: int(weight) for name, weight in pairs.items()}
    except ValueError:
        given = {}
    known = (*SIGNALS, "restart")
    if not given or not all(name in known and 0 < weight <= 1000 for name, weight in given.items()):
        raise argparse.ArgumentTypeError(f"{text!r}: give weights of {', '.join(known)}, like kill=8,restart=1")
    return given


def parser() -> argparse.ArgumentParser:
    """All options."""
    options = argparse.ArgumentParser(
        prog="bench/chaos.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--only", choices=SECTIONS, nargs="+", default=SECTIONS, help="which parts (default: all)")
    options.add_argument("--quick", action="store_true", help="tiny amounts: to see that it works")
    options.add_argument("--seed", type=count, default=1, help="of the requests and the strikes (default 1)")
    options.add_argument("--requests", type=_many, help="of each storm")
    options.add_argument("--strikes", type=_many, help="of each storm")
    options.add_argument("--clients", type=count, help="of each storm")
    options.add_argument("--kinds", type=kinds, help="faults and their weights, like kill=8,term=1,stop=1,restart=1")
    options.add_argument("--json", type=Path, metavar="PATH", help="default: bench/results/chaos-DATE.json")
    options.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown too")
    return options


def _many(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1 to 1000000")
    return int(text)


def plan_of(name: str, options: argparse.Namespace) -> Plan:
    """A storm with what was asked for."""
    plan = STORMS[name][options.quick]
    given = {key: getattr(options, key) for key in ("requests", "strikes", "clients", "kinds")}
    return replace(plan, seed=options.seed, **{key: value for key, value in given.items() if value is not None})


def settings_of(name: str, home: Path) -> Mapping[str, str]:
    """What distinguishes a storm's daemon."""
    if name == "tiny":
        from tests.fakes.tiny_models import write_tiny_model  # noqa: PLC0415 - the other storms need no mlx

        return {"STOKER_MODEL": str(write_tiny_model("llama", home / "tiny-llama"))}
    return FAKE | ({"STOKER_REPLACEMENT": "in-place"} if name == "in-place" else {})


def run(home: Path, options: argparse.Namespace, say: Say) -> list[Section]:
    """All parts that were asked for, each in a folder of its own."""
    sections = []
    for name in options.only:
        say(name)
        place = home / name
        place.mkdir()
        if name in FIGURES:
            sections.append(FIGURES[name](place, options.quick))
        else:
            sections.append(storm(place, settings_of(name, place), plan_of(name, options)))
    return sections


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show, write; the exit code."""
    return command.benchmark("chaos", parser(), run, {}, arguments)


if __name__ == "__main__":
    sys.exit(main())
