"""The engine's core: requests to answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.ipc.errors import ErrorCode
from stoker.ipc.framing import Frame, Response
from stoker.ipc.messages import Figures, Load, Measure, Progress, Speed, Statistics, Warm, WarmPrefix
from stoker.worker.errors import NotLoaded
from stoker.worker.mlx_engine.core import MlxCore, memory_in_use
from tests.fakes.driven_core import DrivenCore, ask

LONG = WarmPrefix(name="long", system="word " * 200)
FAST = Speed(device="cpu", bandwidth=8e9, flops=6e10, seconds=0.5)


@pytest.mark.parametrize("body", [ask("x"), Warm(prefixes=())], ids=["generate", "warm"])
def test_work_needs_a_model(body: Warm) -> None:
    """Before a load, work is refused as such."""
    frames: list[Frame] = []
    with pytest.raises(NotLoaded, match="no model is loaded"):
        MlxCore(frames.append).handle(1, body, 0.0)


def test_figures_before_a_model() -> None:
    """Figures are to be had at any time; without a model the cache is empty."""
    frames: list[Frame] = []
    core = MlxCore(frames.append)
    core.handle(1, Statistics(), 0.0)
    core.cancel(1)
    core.turn()

    assert core.idle
    assert isinstance(frames[0], Response)
    assert isinstance(frames[0].result, Figures)
    assert frames[0].result.cache.entries == 0


def test_loaded_describes_model_and_engine(tiny_hybrid: Path) -> None:
    """The load's result has what the daemon must know, and the engine's versions; steps were reported before."""
    core = DrivenCore(tiny_hybrid)

    assert (core.loaded.model, core.loaded.prefix_reuse) == ("tiny-hybrid", "exact")
    assert core.loaded.kv_bytes_per_token == 512
    assert set(core.loaded.engine) == {"mlx", "mlx_lm", "device"}
    assert [news.stage for news in core.loading.progress] == ["load"] * len(core.loading.progress)
    assert core.loading.progress


def test_figures_follow_the_work(tiny_llama: Path) -> None:
    """Figures count the cache's hits, the running requests and the speed of the latest work."""
    core = DrivenCore(tiny_llama)
    core.generate(ask("x" * 40, 5))
    core.generate(ask("x" * 40, 5))
    core.submit(ask("y", 5))
    figures = core.answer(core.submit(Statistics())).result

    assert isinstance(figures, Figures)
    assert (figures.running, figures.cache.hits, figures.cache.misses) == (1, 1, 1)
    assert figures.cache.entries == 1
    assert figures.prompt_tps > 0
    assert figures.generation_tps > 0
    assert figures.memory_bytes > 10_000_000


def test_warmup_alone_tells_the_speed_of_prefill(tiny_llama: Path) -> None:
    """After a warmup that computed a prefix, the speed of prefill is known before any request has come."""
    core = DrivenCore(tiny_llama)
    core.warm(LONG)
    figures = core.answer(core.submit(Statistics())).result

    assert figures.prompt_tps > 0
    assert figures.generation_tps == 0


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[Speed]:
    """How often was measured, in no time."""
    done: list[Speed] = []

    def measured() -> Speed:
        done.append(FAST)
        return FAST

    monkeypatch.setattr("stoker.worker.mlx_engine.core.measured", measured)
    return done


def test_idle_engine_measures(tiny_llama: Path, measurements: list[Speed]) -> None:
    """An engine with nothing to compute measures at once, with a model and without."""
    core = DrivenCore(tiny_llama)
    frames: list[Frame] = []
    MlxCore(frames.append).handle(1, Measure(), 0.0)

    assert core.answer(core.submit(Measure())).result == FAST
    assert frames == [Response(1, FAST)]


@pytest.mark.parametrize("work", ["a prompt", "an answer", "a warmup", "the rest of a warmup"])
def test_engine_with_work_measures_nothing(tiny_llama: Path, measurements: list[Speed], work: str) -> None:
    """While anything is to be computed, a measurement is refused at once and holds nobody up; later it can be had."""
    core = DrivenCore(tiny_llama, chunk_seconds=0.001)
    if work.endswith("warmup"):
        job = core.submit(Warm(prefixes=(LONG,), finish=True))
        core.core.turn()
        if work.startswith("the rest"):
            core.core.cancel(job)
    else:
        job = core.submit(ask("x" * 40, 5))
        if work == "an answer":
            core.turn_until(lambda: bool(core.answer(job).tokens))
    refused = core.answer(core.submit(Measure())).error
    core.turn_until(lambda: core.core.idle)

    assert (refused.code, refused.data.retryable, measurements) == (ErrorCode.BUSY, True, [])
    assert core.answer(core.submit(Measure())).result == FAST


def test_download_reports_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a download's many callbacks only some become messages."""
    frames: list[Frame] = []
    core = MlxCore(frames.append)

    def load(body: Load, report: object) -> None:
        assert callable(report)
        for done in range(10_000):
            report("download", done, 10_000)
        raise NotLoaded("enough")

    monkeypatch.setattr("stoker.worker.mlx_engine.core.load", load)
    with pytest.raises(NotLoaded):
        core.handle(1, Load(model="m", cache_dir="c"), 0.0)

    assert 1 <= len(frames) < 100
    assert all(isinstance(getattr(frame, "body", None), Progress) for frame in frames)


def test_memory_is_what_the_process_takes() -> None:
    """The figure is at least this process's resident memory, or near it."""
    assert memory_in_use() > 10_000_000
