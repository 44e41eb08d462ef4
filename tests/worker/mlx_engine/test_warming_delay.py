"""How long a running answer waits for a warmup: counted in chunks, not in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stoker.ipc.messages import Warm, WarmPrefix
from stoker.worker.mlx_engine.prefill import Prefill
from tests.fakes.driven_core import DrivenCore, chat

PROMPTS = [f"{n}: a prompt that takes more than one chunk, because it says the same thing again. " * 8 for n in "ABC"]


@pytest.mark.parametrize("stored", [False, True])
def test_no_running_answer_waits_for_more_than_a_chunk(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """While three prefixes are warmed, computed or from disk, at most one chunk comes between two tokens."""
    store = str(tmp_path / "prefixes")
    prefixes = tuple(WarmPrefix(name=text[0], system=text) for text in PROMPTS)
    if stored:
        first = DrivenCore(tiny_llama, store_dir=store)
        first.warm(*prefixes)
        first.core.close(20.0)
    core = DrivenCore(tiny_llama, chunk_seconds=0.0001, store_dir=store)
    chunks: list[str] = []
    step, decode = Prefill.step, type(core.scheduler._decoder).step

    def counted(prefill: Prefill, *args: Any) -> Any:
        chunks.append("chunk")
        return step(prefill, *args)

    def decoded(decoder: Any) -> Any:
        chunks.append("token")
        return decode(decoder)

    running = core.submit(chat("Talk.", "go on", 200))
    core.turn_until(lambda: len(core.answer(running).tokens) > 2)
    monkeypatch.setattr(Prefill, "step", counted)
    monkeypatch.setattr(type(core.scheduler._decoder), "step", decoded)
    request = core.submit(Warm(prefixes=prefixes))
    core.turn_until(lambda: core.answer(request).result is not None)

    assert core.answer(running).result is None  # it ran all the time
    assert core.answer(request).result.outcome == "succeeded"
    assert "chunk,chunk" not in ",".join(chunks)
    assert stored or chunks.count("chunk") > len(PROMPTS)
