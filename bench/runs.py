"""One run: which parts, how much of each, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from bench import agent, daemon_cost, loaded, peer, restored, starts, trials
from bench.blas import preloaded
from stoker.bench import plot, subject
from stoker.bench.children import BenchmarkError
from stoker.bench.machine import machine
from stoker.bench.progress import Say
from stoker.bench.report import Check, Section
from stoker.bench.subject import Subject
from stoker.bench.trials import Trial
from stoker.daemon.derived import EMBEDDED_ID
from stoker.daemon.environment import find_openblas
from stoker.daemon.model_path import EMBEDDED

SECTIONS = ("warmth", "starts", "overhead", "control")
COSTS = ("overhead", "control")
"""Those that need no model."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    only: tuple[str, ...]
    model: str
    against_peer: bool
    trials: trials.Plan
    starts: starts.Plan
    loaded: loaded.Plan
    cost: daemon_cost.Plan
    plot: Path | None = None


def run(home: Path, plan: Plan, say: Say) -> list[Section]:
    """Measure."""
    sections: list[Section] = []
    settings = {"STOKER_MODEL": plan.model}
    model_home = home / "m"
    if {"warmth", "starts"} & set(plan.only):
        model_home.mkdir()
        sections += _with_model(model_home, plan, settings, say)
    fake_home = home / "f"
    fake_home.mkdir()
    if "overhead" in plan.only:
        sections.append(daemon_cost.overhead_section(fake_home, plan.cost, say))
    if "control" in plan.only:
        sections.append(daemon_cost.control_section(fake_home, plan.cost, say))
    return sections


def _with_model(home: Path, plan: Plan, settings: dict[str, str], say: Say) -> Iterator[Section]:
    say("first start; it converts the embedded model" if plan.model == EMBEDDED else "first start")
    with subject.running(home, settings | subject.SETTINGS) as daemon:
        daemon.wait_ready()
        model = model_folder(home, plan.model)
        blas = _blas_check(daemon)
        if "warmth" in plan.only:
            with _peer(model, home, plan, say) as url:
                made = trials.run_trials(daemon, url, plan.trials, say)
    if "warmth" in plan.only:
        made.stoker.update(_agent(home, model, plan, say))
        yield trials.warmth_section(made)
        found = trials.findings_of(made)
        yield restored.restored_section(found)
        if plan.plot is not None:
            _plot(found, plan.plot, say)
    if "starts" in plan.only:
        yield starts.starts_section(starts.run_starts(home, model, settings, plan.starts, say), blas)
        yield loaded.loaded_section(loaded.run_loaded(home / "l", model, settings, plan.loaded, say))


def _agent(home: Path, model: Path, plan: Plan, say: Say) -> dict[tuple[int, str], list[Trial]]:
    if not plan.trials.agent:
        return {}
    folder = agent.model_with_tools(model, home / f"{model.name}-with-tools")
    with subject.running(home, {"STOKER_MODEL": str(folder)} | subject.SETTINGS) as daemon:
        daemon.wait_ready()
        return trials.run_agent(daemon, plan.trials, say)


def _plot(found: Sequence[trials.Findings], path: Path, say: Say) -> None:
    points = plot.curves([one for one in found if one.server == trials.NAME])
    facts = machine(find_openblas())
    plot.draw(points, path, f"{facts['cpu']}, {facts['cores']} cores; median, smallest and largest")
    say(f"written: {path}")


@contextmanager
def _peer(model: Path, home: Path, plan: Plan, say: Say) -> Iterator[str | None]:
    if plan.against_peer:
        say(f"starting {peer.NAME}")
    with peer.running(model, home / "peer.log") if plan.against_peer else nullcontext() as url:
        yield url


def model_folder(home: Path, model: str) -> Path:
    """The directory that the daemon's worker loaded, so that others can load the same.

    Raises:
        BenchmarkError: There is none: it is a hub id.
    """
    folder = home / "cache" / EMBEDDED_ID if model == EMBEDDED else Path(model)
    if not (folder / "config.json").is_file():
        raise BenchmarkError(f"{folder} has no config.json; give --model a directory in mlx-lm's format")
    return folder


def _blas_check(daemon: Subject) -> tuple[Check, ...]:
    found = preloaded(daemon.worker_pid)
    if found is None or find_openblas() is None:
        return ()
    return (Check("the daemon gives its worker OpenBLAS", "yes" if found else "no", found),)
