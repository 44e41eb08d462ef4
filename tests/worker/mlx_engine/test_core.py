"""The engine's core: requests to answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.ipc.framing import Frame, Response
from stoker.ipc.messages import Figures, Load, Progress, Statistics, Warm
from stoker.worker.errors import NotLoaded
from stoker.worker.mlx_engine.core import MlxCore, memory_in_use
from tests.fakes.driven_core import DrivenCore, ask


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
