"""How fast this machine computes for this process: a fixed piece of work, the same whatever model is loaded.

Another process of the same machine gets the same figures, unless one of the two is throttled; to find that out is
all that they are for. They are no model's tokens per second, though these follow them: decoding streams all weights
for each token and is bound by memory, prefill multiplies matrices and is bound by arithmetic.

`python -m stoker.worker.measure` said on two cores, with OpenBLAS preloaded: 15 to 18 GB/s and 40 to 50 GFLOP/s; with
the reference BLAS 4 and 3.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ...ipc.messages import Speed

WEIGHT_BYTES = 64 << 20
"""Of all weights: more than most caches hold, and little beside a model, so that it fits where one is loaded."""

WINDOW = 0.1
"""Seconds of one measurement: the period over which Linux deals out a CPU quota (`cpu.max`; 100 ms unless set).
Within less, a process that may compute for a tenth of the time looks free; over a whole period it does not."""
WINDOWS = 2
"""Measurements of each kind. The best one counts: a neighbour's burst is none of ours."""
LONGEST = 0.4
"""Seconds of one kind after which no further window is begun, so that even a slow machine is done within a second."""

BATCH_SECONDS = 0.002
"""So many products are evaluated together that they take this long: an evaluation costs a GPU tenths of a
millisecond by itself."""
MOST_TOGETHER = 256
"""Products in one evaluation, however fast they are."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is multiplied: a vector, or `rows` of them, with square matrices."""

    dtype: Any
    width: int
    rows: int

    @property
    def matrix_bytes(self) -> int:
        """Of one matrix."""
        return self.width * self.width * int(self.dtype.size)

    @property
    def operations(self) -> int:
        """Of one product of all rows."""
        return 2 * self.rows * self.width * self.width


ON_CPU = Work(mx.float32, width=1024, rows=32)
"""0.07 GFLOP: a sixtieth of a second with the reference BLAS. float32 is what is fastest there."""
ON_GPU = Work(mx.float16, width=2048, rows=512)
"""4.3 GFLOP: enough for all cores of a GPU, and 2 ms of the smallest."""


def measured(clock: Callable[[], float] = time.perf_counter) -> Speed:
    """Measure, on this thread and mlx's default device: half a second, and 64 MiB that are given back."""
    start = clock()
    device = mx.default_device().type
    work = ON_GPU if device == mx.gpu else ON_CPU
    weights = weights_for(work)
    decoding = best_rate(Products(weights, rows=1), clock)
    prefill = best_rate(Products(weights, work.rows), clock)
    del weights
    mx.clear_cache()
    return Speed(
        device=device.name,
        bandwidth=float(round(decoding * work.matrix_bytes)),
        flops=float(round(prefill * work.operations)),
        seconds=round(clock() - start, 6),
    )


def weights_for(work: Work) -> list[Any]:
    """All matrices. Ones times them are ones again: no product overflows, or is a denormal number, which is slow."""
    count = WEIGHT_BYTES // work.matrix_bytes
    weights = [mx.full((work.width, work.width), 1 / work.width, work.dtype) for _ in range(count)]
    mx.eval(weights)
    return weights


class Products:
    """One product after the other, each with the next weights, as a token goes through a model's layers."""

    def __init__(self, weights: Sequence[Any], rows: int) -> None:
        self._weights = itertools.cycle(weights)
        self._ones = mx.ones((rows, weights[0].shape[0]), weights[0].dtype)

    def __call__(self, count: int) -> Any:
        """Compute so many; returns what came out."""
        product = self._ones
        for weight in itertools.islice(self._weights, count):
            product = product @ weight.T
        mx.eval(product)
        return product


def best_rate(compute: Callable[[int], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Products per second in the best window; `compute` computes a number of them."""
    start = clock()
    compute(1)  # the first pays for what is compiled, and for memory that was never touched
    together = _batch(compute, clock)
    best = 0.0
    for _ in range(WINDOWS):
        best = max(best, _rate(compute, together, clock))
        if clock() - start > LONGEST:
            break
    return best


def _batch(compute: Callable[[int], object], clock: Callable[[], float]) -> int:
    count = 1
    while count < MOST_TOGETHER:
        start = clock()
        compute(count)
        if clock() - start >= BATCH_SECONDS:
            break
        count *= 2
    return count


def _rate(compute: Callable[[int], object], together: int, clock: Callable[[], float]) -> float:
    start, done = clock(), 0
    while (elapsed := clock() - start) < WINDOW:
        compute(together)
        done += together
    return done / elapsed
