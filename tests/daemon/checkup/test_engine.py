"""Engine and model as a worker would find them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stoker.daemon.checkup import engine
from stoker.daemon.checkup.finding import Finding
from stoker.daemon.settings import Settings

ENGINE = {"mlx": "0.32.4", "mlx_lm": "0.32.2", "device": "Device(cpu, 0)"}
SIZES = {"model_bytes": 8 << 30, "kv_bytes_per_token": 1 << 20, "context_tokens": 4096}


def last(seen: dict[str, Any], settings: Settings | None = None, memory: int = 32 << 30) -> Finding:
    """The last finding of a look."""
    return list(engine.of(msgspec.convert({"engine": ENGINE, **seen}, engine.Seen), settings or Settings(), memory))[
        -1
    ]


def test_model_that_fits() -> None:
    """Weights and KV of a whole context, against what the worker may use."""
    finding = last(SIZES)

    assert finding.level == "ok"
    assert finding.text == "8.0 GiB weights and 4.0 GiB for a context of 4,096 tokens, of 25.6 GiB"


def test_context_that_does_not_fit() -> None:
    """Then the largest one that does is named; set, it fits."""
    finding = last(SIZES, memory=12 << 30)
    assert finding.level == "note"
    assert finding.remedy == "set context_tokens to 1,638 or less"

    assert last(SIZES, Settings(context_tokens=1638), memory=12 << 30).level == "ok"


def test_weights_that_do_not_fit() -> None:
    """No setting helps there."""
    assert last(SIZES, memory=8 << 30).level == "wrong"


def test_model_that_is_damaged() -> None:
    """The worker's own words, which name the file, and its remedy."""
    finding = last({"model_problem": "/m/model-2.safetensors is missing", "remedy": "fetch it again"})

    assert finding == Finding("model", "wrong", "/m/model-2.safetensors is missing", "fetch it again")


def test_model_that_comes_later() -> None:
    """One that the first start fetches is no fault."""
    assert last({"absent": True}).level == "ok"


def test_kv_that_is_not_known() -> None:
    """Then nothing is claimed of memory."""
    assert last({**SIZES, "kv_bytes_per_token": None}).level == "note"


def test_engine_that_can_not_be_imported() -> None:
    """What Python said is told, and nothing more is looked for."""
    (finding,) = engine.of(engine.Seen(engine_problem="ImportError: no"), Settings(), 1)

    assert (finding.level, finding.text) == ("wrong", "it can't be imported: ImportError: no")


@pytest.mark.parametrize("program", ["import sys; sys.exit(3)", "print('no json')", "print('[]')"])
def test_look_that_fails(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that can't be had is a finding of its own."""
    monkeypatch.setattr(engine, "COMMAND", (sys.executable, "-c", program))
    (finding,) = engine.findings(Settings())

    assert (finding.subject, finding.level) == ("mlx", "wrong")


@pytest.mark.slow
def test_real_look(tiny_llama: Path, tmp_path: Path) -> None:
    """A model on disk is measured without being loaded, and a missing shard is named."""
    good = list(engine.findings(Settings(model=str(tiny_llama), cache_dir=tmp_path)))
    shard = next(tiny_llama.glob("model*.safetensors"))
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny_llama.iterdir():
        if file != shard:
            (broken / file.name).write_bytes(file.read_bytes())
    bad = list(engine.findings(Settings(model=str(broken), cache_dir=tmp_path)))

    assert [finding.level for finding in good] == ["ok", "ok", "ok"]
    assert "for a context of" in good[-1].text
    assert bad[-1].level == "wrong"
    assert "has no weights" in bad[-1].text
