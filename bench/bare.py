"""mlx-lm without any server, in a process of its own: what the model itself takes, whoever serves it.

python bench/bare.py rate|first MODEL ASKED FOUND    answer the requests in a JSON file, write one number to another
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # run as a script, Python knows this folder, not its parent

import mlx.core as mx  # noqa: E402 - after the line above
import mlx_lm  # noqa: E402
from mlx_lm.generate import BatchGenerator, generate_step  # noqa: E402
from mlx_lm.models.cache import make_prompt_cache  # noqa: E402

from bench.blas import engine_environment  # noqa: E402
from stoker.bench.children import BenchmarkError, child  # noqa: E402
from stoker.bench.report import Json  # noqa: E402

NAME = "mlx-lm, no server"
TIMEOUT = 3600.0
"""Seconds for it to answer all."""


class Bare:
    """Takes turns with the servers; each trial is a process that loads the model first, which isn't counted.

    Args:
        model: A folder.
        home: For what goes between the processes.
    """

    name = NAME

    def __init__(self, model: Path, home: Path) -> None:
        self._model = model
        self._home = home

    def rate(self, bodies: Sequence[Json]) -> float:
        """Tokens per second of all answers together, by mlx-lm's batch generator as its server sets it up."""
        return self._run("rate", bodies)

    def first(self, known: Json, body: Json) -> float:
        """Seconds to the first token by mlx-lm's `generate_step`, with the KV of what both prompts begin with."""
        return self._run("first", (known, body))

    def _run(self, what: str, bodies: Sequence[Json]) -> float:
        asked, found, log = (self._home / f"bare.{name}" for name in ("asked", "found", "log"))
        asked.write_text(json.dumps(list(bodies)), encoding="utf-8")
        script = str(Path(__file__).resolve())
        command = [sys.executable, script, what, str(self._model), str(asked), str(found)]
        with child(command, engine_environment(), log) as process:
            if process.wait(TIMEOUT) != 0:
                words = log.read_text(encoding="utf-8", errors="replace")[-800:]
                raise BenchmarkError(f"mlx-lm alone could not answer: {words}")
        return float(found.read_text(encoding="utf-8"))


# -- in the process ------------------------------------------------------------------------------------------


def rate(model: Any, tokenizer: Any, bodies: Sequence[Json]) -> float:
    """See `Bare.rate`."""
    prompts = [_prompt(tokenizer, each) for each in bodies]
    _generated(model, tokenizer, prompts[:1], [2])  # the first of a process pays for what only it pays for
    start = time.perf_counter()
    tokens = _generated(model, tokenizer, prompts, [each["max_tokens"] for each in bodies])
    return tokens / (time.perf_counter() - start)


def first(model: Any, tokenizer: Any, bodies: Sequence[Json]) -> float:
    """See `Bare.first`."""
    known, prompt = (_prompt(tokenizer, each) for each in bodies)
    common = next(place for place, pair in enumerate(zip(known, prompt, strict=False)) if pair[0] != pair[1])
    cache = make_prompt_cache(model)
    next(generate_step(mx.array(prompt[:common]), model, prompt_cache=deepcopy(cache), max_tokens=1))  # as above
    model(mx.array(prompt[:common])[None], cache=cache)
    mx.eval([layer.state for layer in cache])
    start = time.perf_counter()
    next(generate_step(mx.array(prompt[common:]), model, prompt_cache=cache, max_tokens=1))
    return time.perf_counter() - start


def _prompt(tokenizer: Any, body: Json) -> list[int]:
    prompt: list[int] = tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True)
    return prompt


def _generated(model: Any, tokenizer: Any, prompts: Sequence[list[int]], limits: Sequence[int]) -> int:
    generator = BatchGenerator(model, stop_tokens=[[token] for token in tokenizer.eos_token_ids])
    generator.insert(list(prompts), max_tokens=list(limits))
    tokens = ended = 0
    while ended < len(prompts):
        said = generator.next()[1]
        tokens += len(said)
        ended += sum(each.finish_reason is not None for each in said)
    return tokens


def main(what: str, folder: str, asked: str, found: str) -> None:
    """Load the model, measure, and write down the number."""
    model, tokenizer = mlx_lm.load(folder)[:2]
    bodies = json.loads(Path(asked).read_text(encoding="utf-8"))
    measured = {"rate": rate, "first": first}[what](model, tokenizer, bodies)
    Path(found).write_text(str(measured), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
