"""What a decoding step costs around the model: the engine beside mlx-lm's bare batch generator, in one process.

python bench/decode_steps.py                  a tiny model: nearly all of a step is what surrounds the forward
python bench/decode_steps.py --quick          does it work?
python bench/decode_steps.py --model FOLDER --kinds greedy --steps 8   another model, in mlx-lm's format

No worker process, no socket: steps of the engine's own thread, with text, deltas and all, but the frames are dropped.
The two take turns, round by round. Each figure is the median of the rounds' medians, in milliseconds for a step.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # run as a script, Python knows this folder, not its parent

from mlx_lm.generate import BatchGenerator  # noqa: E402 - after the line above

from bench import command  # noqa: E402 - the same
from stoker.ipc.messages import Generate, Load, Sampling, TextPrompt  # noqa: E402
from stoker.worker.mlx_engine.core import MlxCore  # noqa: E402
from tests.fakes.tiny_models import PROBES, write_tiny_model  # noqa: E402

KINDS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"sampling": Sampling(temperature=0.8, top_p=0.95, seed=1)},
    "penalties": {"sampling": Sampling(presence_penalty=1.0, repetition_penalty=1.1)},
    "logprobs": {"logprobs": 5},
}
"""What the requests of a column ask for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    steps: int = 200
    rounds: int = 5
    batches: tuple[int, ...] = (1, 8, 16)
    kinds: tuple[str, ...] = tuple(KINDS)


QUICK = Plan(steps=5, rounds=1, batches=(1, 2))


class Subject:
    """The engine, without a session around it.

    Args:
        model: A folder.
    """

    def __init__(self, model: Path) -> None:
        self._ids = itertools.count()
        self.core = MlxCore(lambda _frame: None)
        self.core.handle(next(self._ids), Load(model=str(model), cache_dir=str(model), max_batch=64), 0.0)
        assert self.core._scheduler is not None  # noqa: SLF001 - this measures it from the inside
        self.scheduler = self.core._scheduler  # noqa: SLF001 - the same
        # Nobody ends here, or a step would be one of fewer sequences than the table says.
        self.scheduler._ends = frozenset()  # noqa: SLF001 - the same
        self.scheduler._decoder = self.scheduler._new_decoder()  # noqa: SLF001 - the same

    def round(self, batch: int, steps: int, how: dict[str, Any]) -> float:
        """Seconds of a step, the median, with so many sequences."""
        ids = [next(self._ids) for _ in range(batch)]
        for place, request_id in enumerate(ids):
            prompt = TextPrompt(text=PROBES[place % len(PROBES)])
            self.core.handle(request_id, Generate(prompt=prompt, max_tokens=2 * steps + 64, **how), 0.0)
        while self.scheduler._waiting:  # noqa: SLF001 - the same
            self.core.turn()
        seconds = timed(self.core.turn, steps)
        for request_id in ids:
            self.core.cancel(request_id)
        return seconds

    def bare(self, batch: int, steps: int) -> float:
        """The same by mlx-lm's batch generator with the same model."""
        loaded = self.scheduler.loaded
        generator = BatchGenerator(loaded.model, completion_batch_size=64, prefill_batch_size=1)
        prompts = [loaded.tokenizer.encode(PROBES[place % len(PROBES)]) for place in range(batch)]
        generator.insert(prompts, max_tokens=[2 * steps + 64] * batch)
        while len(generator.next()[1]) < batch:
            pass
        return timed(generator.next, steps)


def timed(step: Callable[[], object], count: int) -> float:
    """Median seconds of a call."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measured(subject: Subject, plan: Plan, batch: int) -> dict[str, float]:
    """Milliseconds for a step, by column."""
    rounds: dict[str, list[float]] = {"bare": [], **{kind: [] for kind in plan.kinds}}
    for _ in range(plan.rounds):
        rounds["bare"].append(subject.bare(batch, plan.steps))
        for kind in plan.kinds:
            rounds[kind].append(subject.round(batch, plan.steps, KINDS[kind]))
    return {name: 1000 * statistics.median(values) for name, values in rounds.items()}


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description="Milliseconds of a decoding step.")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="columns (default: all)")
    parser.add_argument("--steps", type=command.count, help="of each round (default 200)")
    options = parser.parse_args()
    plan = QUICK if options.quick else Plan()
    plan = replace(plan, kinds=tuple(options.kinds), steps=options.steps or plan.steps)
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(options.model or write_tiny_model("llama", Path(folder) / "tiny"))
        print("| sequences | bare | " + " | ".join(plan.kinds) + " |")
        print("|---:" * (2 + len(plan.kinds)) + "|")
        for batch in plan.batches:
            figures = measured(subject, plan, batch)
            print(f"| {batch} | " + " | ".join(f"{value:.2f}" for value in figures.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
