"""The fixed piece of work that shows whether a process is throttled: mostly in virtual time."""

from __future__ import annotations

import mlx.core as mx
import pytest

from stoker.worker.mlx_engine.speed import ON_CPU, ON_GPU, Products, Work, best_rate, measured, weights_for

PERIOD = 0.1
"""Seconds over which a quota is dealt out, unless somebody sets another (`cpu.max`, `cpu.cfs_period_us`)."""


class Processor:
    """Computes in virtual time.

    Args:
        seconds: For a product.
        share: Of each tenth of a second in which it may compute; then it stands still, as under a quota.
        phase: When in such a tenth the time begins.
    """

    def __init__(self, seconds: float, share: float = 1.0, phase: float = 0.0) -> None:
        self.seconds = seconds
        self._share = share
        self._now = self._start = phase

    def clock(self) -> float:
        return self._now

    @property
    def elapsed(self) -> float:
        return self._now - self._start

    def compute(self, count: int) -> None:
        left = count * self.seconds
        while left > 1e-9:
            until = (self._now // PERIOD + self._share) * PERIOD
            if self._now >= until:
                self._now = (self._now // PERIOD + 1) * PERIOD + 1e-9
            else:
                step = min(left, until - self._now)
                self._now += step
                left -= step


@pytest.mark.parametrize("phase", [0.0, 0.005, 0.015, 0.05])
def test_quota_shows(phase: float) -> None:
    """A process that may compute in a fifth of the time reads as a fifth, whenever in its turn it begins."""
    free, throttled = Processor(0.0005), Processor(0.0005, share=0.2, phase=phase)
    share = best_rate(throttled.compute, throttled.clock) / best_rate(free.compute, free.clock)

    assert share == pytest.approx(0.2, abs=0.06)


def test_better_window_counts() -> None:
    """A neighbour that takes half the speed in one window does not count."""
    processor = Processor(0.0005)

    def compute(count: int) -> None:
        processor.seconds = 0.001 if processor.elapsed < PERIOD else 0.0005
        processor.compute(count)

    assert best_rate(compute, processor.clock) == pytest.approx(2000, rel=0.05)


@pytest.mark.parametrize("seconds", [1e-6, 0.001, 0.017, 0.12, 0.15])
def test_bounded_by_time(seconds: float) -> None:
    """Whatever a product takes, half a second is enough for one of the two kinds, and the rate is right."""
    processor = Processor(seconds)
    rate = best_rate(processor.compute, processor.clock)

    assert processor.elapsed <= 0.5
    assert rate == pytest.approx(1 / seconds, rel=0.05)


@pytest.mark.parametrize("work", [ON_CPU, ON_GPU], ids=["cpu", "gpu"])
def test_products_stay_what_they_are(work: Work) -> None:
    """A chain of products through all weights, 64 MiB, ends in the very ones that it began with."""
    weights = weights_for(work)
    product = Products(weights, rows=1)(2 * len(weights))

    assert sum(weight.nbytes for weight in weights) == 64 << 20
    assert (product.shape, product.dtype) == ((1, work.width), work.dtype)
    assert bool(mx.all(product == 1).item())


def test_real_measurement_leaves_nothing() -> None:
    """Both figures are there, of the device that the engine computes on, and the memory is given back."""
    before = mx.get_active_memory()
    speed = measured()

    assert speed.device == mx.default_device().type.name
    assert speed.bandwidth > 1e6
    assert speed.flops > 1e6
    assert mx.get_active_memory() <= before  # less, where something of an earlier test was still to be freed
    assert mx.get_cache_memory() < 1 << 20
