"""The look at engine and model that `stoker doctor` takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from stoker.worker import checkup


def test_embedded_model_before_the_first_start(tmp_path: Path) -> None:
    """It is absent, and looking converts nothing."""
    seen = checkup.look("embedded", tmp_path / "cache")

    assert seen["absent"] is True
    assert seen["engine"]["mlx"]
    assert not (tmp_path / "cache").exists()


def test_hub_model_that_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is absent, and nobody asks the network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert checkup.look("nobody/nothing-of-the-kind", tmp_path)["absent"] is True


def test_model_on_disk(tiny_llama: Path, tmp_path: Path) -> None:
    """Its weights, its KV and its context are told."""
    seen = checkup.look(str(tiny_llama), tmp_path)

    assert seen["model_bytes"] == sum(file.stat().st_size for file in tiny_llama.glob("model*.safetensors"))
    assert seen["kv_bytes_per_token"] > 0
    assert seen["context_tokens"] > 0


def test_damaged_model(tmp_path: Path) -> None:
    """The problem is put into the words of a load, with the remedy."""
    (tmp_path / "config.json").write_text("{}")
    seen = checkup.look(str(tmp_path), tmp_path)

    assert "has no model_type" in seen["model_problem"]
    assert seen["remedy"]


def test_engine_that_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that can't be imported is the finding."""
    monkeypatch.setitem(sys.modules, "mlx.core", None)

    assert checkup.look("embedded", tmp_path)["engine_problem"].startswith("ModuleNotFoundError")


def test_prints_one_object(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program prints JSON on one line and nothing else."""
    monkeypatch.setattr(sys, "argv", ["checkup", str(tiny_llama), str(tmp_path)])
    checkup.main()

    assert json.loads(capsys.readouterr().out)["engine"]["device"]
