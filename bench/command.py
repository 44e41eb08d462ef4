"""The benchmarks' command line: options, progress, results. What is measured is told by the modules it calls."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias, TypeVar

import aiohttp
from rich.console import Console

from bench import daemon_cost, loaded, peer, runs, starts
from bench.markdown import markdown
from bench.trials import Plan
from stoker.bench import measuring
from stoker.bench import options as allowed
from stoker.bench.children import own_folder, unwinding
from stoker.bench.machine import machine, versions
from stoker.bench.progress import Say, progress
from stoker.bench.report import Json, Report, Section
from stoker.bench.subject import SETTINGS
from stoker.bench.tables import show
from stoker.daemon.environment import find_openblas

T = TypeVar("T")

Measure: TypeAlias = Callable[[Path, argparse.Namespace, Say], list[Section]]
"""Measures, in a folder that is gone afterwards, with these options."""

FAILURES = (*measuring.FAILURES, aiohttp.ClientError)
"""What keeps a run from being measured: processes that don't come up, die, or don't answer in time."""
LAST_LINES = 8
"""Of each log, shown then."""
OUTPUTS = {"--json", "--markdown", "--plot"}
SIZES = (500, 1000, 2000, 4000)
MOST_AGENT = 2
"""Trials of an agent's request: each computes nearly 7,000 tokens twice, which takes minutes on two cores."""

RESULTS = Path(__file__).parent / "results"

EXAMPLES = """\
examples:
  make bench                                   everything; about 50 minutes on two cores, keep them quiet
  make bench ARGS="--quick --no-peer"          does it work? a minute; not to be quoted
  make bench ARGS="--only warmth --sizes 4000 --repeats 1"
  make bench ARGS="--only warmth --no-agent --sizes 500,2000 --no-peer"
  make bench ARGS="--markdown /tmp/tables.md --plot docs/images/warmth.svg"  for docs/benchmarks.md

exit code: 0 measured; 1 measured, and something is wrong (a figure not reached is not wrong); 2 not measured
"""


def _type(read: Callable[[str], T]) -> Callable[[str], T]:
    """What argparse asks with: it has an error of its own for what is not allowed."""

    def typed(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return typed


count = _type(allowed.count)


def basic_parser(name: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    options = argparse.ArgumentParser(
        prog=f"bench/{name}.py",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--repeats", type=count, help="of everything that takes seconds (default 3)")
    options.add_argument("--quick", action="store_true", help="tiny sizes, one repeat: to see that it works")
    options.add_argument(
        "--model", default="embedded", help="`embedded` (default), or a directory in mlx-lm's format"
    )
    options.add_argument("--against", choices=[peer.NAME, "nobody"], default=peer.NAME, help="the peer")
    options.add_argument("--no-peer", dest="against", action="store_const", const="nobody", help="no peer")
    options.add_argument("--json", type=Path, metavar="PATH", help=f"default: bench/results/{name}-DATE.json")
    options.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown too")
    return options


def parser(name: str) -> argparse.ArgumentParser:
    """All options of the benchmarks of warmth and of cost."""
    description = "Measures Stoker, side by side with mlx_lm.server: cold against warm, time to ready, own cost."
    options = basic_parser(name, description, EXAMPLES)
    only = runs.SECTIONS if name == "warmth" else runs.COSTS
    options.add_argument("--only", choices=only, nargs="+", default=only, help="which parts (default: all)")
    options.add_argument(
        "--sizes", type=_type(allowed.sizes), help="tokens of system prompt, about (default 500,1000,2000,4000)"
    )
    options.add_argument("--no-agent", action="store_true", help="no request with 4000 tokens and 20 tools")
    options.add_argument(
        "--plot", type=_type(allowed.picture), metavar="FILE", help="draw the curves: .svg, .png or .pdf"
    )
    return options


def plan_of(options: argparse.Namespace) -> runs.Plan:
    """From options to amounts."""
    quick = options.quick
    repeats = options.repeats or (1 if quick else 3)
    sizes = options.sizes or ((100,) if quick else SIZES)
    agent = 0 if options.no_agent else min(repeats, MOST_AGENT)
    trials = Plan(sizes, repeats, others=2 if quick else 5, agent=agent)
    if quick:
        trials = replace(trials, tools=2, agent_tokens=100)
    return runs.Plan(
        only=tuple(options.only),
        model=options.model,
        against_peer=options.against == peer.NAME,
        trials=trials,
        starts=starts.Plan(repeats, healthy=not quick),
        loaded=loaded.Plan(repeats, tokens=100 if quick else loaded.TOKENS),
        plot=options.plot,
        cost=daemon_cost.QUICK if quick else daemon_cost.Plan(),
    )


def main(name: str, arguments: Sequence[str] | None = None) -> int:
    """Measure warmth or cost, show, write; the exit code."""

    def measure(home: Path, options: argparse.Namespace, say: Say) -> list[Section]:
        return runs.run(home, plan_of(options), say)

    return benchmark(name, parser(name), measure, SETTINGS, arguments)


def benchmark(
    name: str,
    parser: argparse.ArgumentParser,
    measure: Measure,
    settings: Mapping[str, str],
    arguments: Sequence[str] | None = None,
) -> int:
    """Measure, show, write.

    Args:
        name: Of the benchmark, for its results.
        parser: Of its options.
        measure: What it does.
        settings: Of the daemon, where they are not the defaults; for the report.
        arguments: None for the process's own.

    Returns:
        The exit code.
    """
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    say = progress()
    try:
        facts = _facts(options, settings, say)
        report = Report(command_line(name, given), facts, _measured(measure, options, say))
    except KeyboardInterrupt:
        say("interrupted; everything that was started is stopped")
        return 130
    except FAILURES as error:
        say(f"not measured: {str(error) or repr(error)}")
        return 2
    show(report, _console())
    _write(report, options, name)
    return 0 if report.correct else 1


def _facts(options: argparse.Namespace, settings: Mapping[str, str], say: Say) -> Json:
    say("looking at the machine")
    facts = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(find_openblas()),
        "versions": versions(),
        "quick": options.quick,
        **({"model": Path(options.model).name} if "model" in options else {}),
        "settings": dict(settings),
    }
    if not facts["machine"]["quiet"]:
        say("the machine is busy: absolute times will be too long; ratios suffer less")
    return facts


def _measured(measure: Measure, options: argparse.Namespace, say: Say) -> list[Section]:
    with unwinding(), own_folder() as home:
        try:
            return measure(home, options, say)
        except FAILURES:
            _quote_logs(home)  # they are gone with the folder
            raise


def _quote_logs(home: Path) -> None:
    for path in sorted(home.rglob("*.log")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        print(*[f"{path.relative_to(home)}: {line}" for line in lines[-LAST_LINES:]], sep="\n", file=sys.stderr)


def command_line(name: str, arguments: Sequence[str]) -> str:
    """What to type to measure the same again; where results go doesn't matter for that."""
    kept = [
        argument
        for before, argument in pairwise(["", *arguments])
        if not {before, argument} & OUTPUTS and not argument.startswith(tuple(f"{name}=" for name in OUTPUTS))
    ]
    given = shlex.join(kept)
    if name != "warmth":
        return f"python bench/{name}.py {given}".rstrip()
    return f"make bench ARGS={shlex.quote(given)}" if given else "make bench"


def _console() -> Console:
    """Wide enough for the tables where the output is a file."""
    console = Console()
    return console if console.is_terminal else Console(width=150)


def _write(report: Report, options: argparse.Namespace, name: str) -> None:
    stamp = report.facts["date"][:16].replace(":", "")
    path = options.json or RESULTS / f"{name}-{stamp}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report.data(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {path}", file=sys.stderr)
    if options.markdown:
        options.markdown.write_text(markdown(report), encoding="utf-8")
        print(f"written: {options.markdown}", file=sys.stderr)
