"""The process of `bare`: mlx-lm loads a model and answers; what was measured, or said, is written down.

python bench/bare_child.py rate|first|texts MODEL ASKED FOUND    both files are JSON
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

from stoker.worker.prefix import common_length


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
    common = common_length(known, prompt)
    cache = make_prompt_cache(model)
    next(generate_step(mx.array(prompt[:common]), model, prompt_cache=deepcopy(cache), max_tokens=1))  # as above
    model(mx.array(prompt[:common])[None], cache=cache)
    mx.eval([layer.state for layer in cache])
    start = time.perf_counter()
    next(generate_step(mx.array(prompt[common:]), model, prompt_cache=cache, max_tokens=1))
    return time.perf_counter() - start


def texts(model: Any, tokenizer: Any, bodies: Sequence[Mapping[str, Any]]) -> list[str]:
    """See `Bare.texts`."""
    return [
        "".join(
            piece.text
            for piece in mlx_lm.stream_generate(
                model, tokenizer, _prompt(tokenizer, each), max_tokens=each["max_tokens"]
            )
        )
        for each in bodies
    ]


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
    """Load the model, answer, and write down what comes of it."""
    model, tokenizer = mlx_lm.load(folder)[:2]
    bodies = json.loads(Path(asked).read_text(encoding="utf-8"))
    answer = {"rate": rate, "first": first, "texts": texts}[what]
    Path(found).write_text(json.dumps(answer(model, tokenizer, bodies)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
