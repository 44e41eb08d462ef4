"""The process of `bare`: mlx-lm loads a model and answers; one number is written down.

python bench/bare_child.py rate|first MODEL ASKED FOUND    ASKED: requests in JSON; FOUND: the number
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
from mlx_lm.generate import BatchGenerator, generate_step
from mlx_lm.models.cache import make_prompt_cache


def rate(model: Any, tokenizer: Any, bodies: Sequence[Mapping[str, Any]]) -> float:
    """Tokens per second; see `Bare.rate`."""
    prompts = [_prompt(tokenizer, each) for each in bodies]
    _generated(model, tokenizer, prompts[:1], [2])  # the first of a process pays for what only it pays for
    start = time.perf_counter()
    tokens = _generated(model, tokenizer, prompts, [each["max_tokens"] for each in bodies])
    return tokens / (time.perf_counter() - start)


def first(model: Any, tokenizer: Any, bodies: Sequence[Mapping[str, Any]]) -> float:
    """Seconds; see `Bare.first`."""
    known, prompt = (_prompt(tokenizer, each) for each in bodies)
    common = next(place for place, pair in enumerate(zip(known, prompt, strict=False)) if pair[0] != pair[1])
    cache = make_prompt_cache(model)
    next(generate_step(mx.array(prompt[:common]), model, prompt_cache=deepcopy(cache), max_tokens=1))  # as above
    model(mx.array(prompt[:common])[None], cache=cache)
    mx.eval([layer.state for layer in cache])
    start = time.perf_counter()
    next(generate_step(mx.array(prompt[common:]), model, prompt_cache=cache, max_tokens=1))
    return time.perf_counter() - start


def _prompt(tokenizer: Any, body: Mapping[str, Any]) -> list[int]:
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
