"""The benchmark of serving: many streams at once, side by side with mlx-lm's server. See docs/benchmarks.md.

python bench/serving.py
python bench/serving.py --help
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # run as a script, Python knows this folder, not its parent

from bench import command, equality, intrusion, parallel, peer  # noqa: E402 - after the line above
from bench.bare import Bare  # noqa: E402
from bench.rivals import Server, rivals  # noqa: E402
from bench.runs import model_folder  # noqa: E402
from stoker.bench import subject  # noqa: E402 - after the line above
from stoker.bench.report import Section  # noqa: E402
from stoker.daemon.model_path import EMBEDDED  # noqa: E402

SECTIONS = ("throughput", "first_token", "leaving", "joining", "equality")

EXAMPLES = """\
examples:
  python bench/serving.py                             everything; keep the machine quiet
  python bench/serving.py --quick                     does it work? not to be quoted
  python bench/serving.py --only throughput --streams 1,16 --repeats 5
  python bench/serving.py --only equality --prompts 100 --no-peer

exit code: 0 measured; 1 measured, and something is wrong (a figure not reached is not wrong); 2 not measured
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    only: tuple[str, ...]
    model: str
    against_peer: bool
    parallel: parallel.Plan
    intrusion: intrusion.Plan
    equality: equality.Plan


def streams(text: str) -> tuple[int, ...]:
    """`1,4,8,16`."""
    given = tuple(int(part) for part in text.split(",") if part.isdecimal())
    if not given or len(given) != text.count(",") + 1 or not all(1 <= each <= 64 for each in given):
        raise argparse.ArgumentTypeError(f"{text!r}: give numbers from 1 to 64, with commas between, like 1,4,8,16")
    return given


def parser() -> argparse.ArgumentParser:
    """All options."""
    options = command.basic_parser("serving", "Measures serving, side by side with mlx_lm.server.", EXAMPLES)
    options.add_argument("--only", choices=SECTIONS, nargs="+", default=SECTIONS, help="which parts (default: all)")
    options.add_argument("--streams", type=streams, help="at once (default 1,4,8,16)")
    options.add_argument("--tokens", type=command.count, help="of each answer, at most (default 96)")
    options.add_argument("--prompts", type=command.count, help="for the comparison with mlx-lm (default 100)")
    return options


def plan_of(options: argparse.Namespace) -> Plan:
    """From options to amounts."""
    quick = options.quick
    repeats = options.repeats or (1 if quick else 3)
    return Plan(
        only=tuple(options.only),
        model=options.model,
        against_peer=options.against == peer.NAME,
        parallel=parallel.Plan(
            streams=options.streams or ((1, 2) if quick else (1, 4, 8, 16)),
            repeats=repeats,
            tokens=options.tokens or (8 if quick else 96),
            system_tokens=100 if quick else 500,
        ),
        intrusion=intrusion.Plan(repeats, prompt_tokens=300 if quick else 2000, streams=2 if quick else 4),
        equality=equality.Plan(options.prompts or (4 if quick else 100)),
    )


def run(home: Path, plan: Plan, say: Callable[[str], None]) -> list[Section]:
    """Measure."""
    say("first start; it converts the embedded model" if plan.model == EMBEDDED else "first start")
    with subject.running(home, {"STOKER_MODEL": plan.model}) as daemon:
        daemon.wait_ready()
        model = model_folder(home, plan.model)
        with peer.running(model, home / "peer.log") if plan.against_peer else nullcontext() as url:
            servers = rivals(daemon.status().http, url)
            for server in servers:
                say(f"{server.name}: the first request of a process pays for what only it pays for")
                parallel.wave(server, parallel.requests(1, 1, "first of the process"))
            return _sections(servers, model, home, plan, say)


def _sections(
    servers: Sequence[Server], model: Path, home: Path, plan: Plan, say: Callable[[str], None]
) -> list[Section]:
    bare = Bare(model, home)
    alone = bare if plan.against_peer else None
    parts: dict[str, Callable[[], Section]] = {
        "throughput": lambda: parallel.rate_section(servers, alone, plan.parallel, say),
        "first_token": lambda: parallel.first_section(servers, alone, plan.parallel, say),
        "leaving": lambda: intrusion.leave_section(servers, plan.intrusion, say),
        "joining": lambda: intrusion.join_section(servers, plan.intrusion, say),
        "equality": lambda: equality.equality_section(servers[0], bare, plan.equality, say),
    }
    return [part() for name, part in parts.items() if name in plan.only]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show, write; the exit code."""

    def measure(home: Path, options: argparse.Namespace, say: Callable[[str], None]) -> list[Section]:
        return run(home, plan_of(options), say)

    return command.benchmark("serving", parser(), measure, {}, arguments)


if __name__ == "__main__":
    sys.exit(main())
