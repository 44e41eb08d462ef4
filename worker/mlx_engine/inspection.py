"""What a model will need, read from its files without loading it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model

from ..embedded import converted_model
from .faults import check_folder, read_json
from .kv import KvCost
from .loading import CONTEXT_KEYS
from .sources import EMBEDDED, cached_snapshot

TRIED_TOKENS = 8


def inspected(model: str, cache_dir: Path) -> dict[str, Any]:
    """Sizes in bytes and tokens; `absent` where a start would fetch or convert the model first.

    Raises:
        ModelUnusable: Something is missing or damaged.
    """
    folder = _folder(model, cache_dir)
    if folder is None:
        return {"absent": True}
    check_folder(folder)
    config = read_json(folder / "config.json")
    sources = (config, config.get("text_config") or {})
    context = next((source[key] for source in sources for key in CONTEXT_KEYS if source.get(key)), None)
    return {
        "model_bytes": sum(file.stat().st_size for file in folder.glob("model*.safetensors")),
        "kv_bytes_per_token": _kv_bytes(folder),
        "context_tokens": context,
    }


def _folder(model: str, cache_dir: Path) -> Path | None:
    if model == EMBEDDED:
        return converted_model(cache_dir)
    path = Path(model).expanduser()
    return path if path.is_dir() else cached_snapshot(model)


def _kv_bytes(folder: Path) -> int | None:
    """Bytes of KV for each token; None where only loading would tell."""
    try:
        model, _ = load_model(folder, lazy=True)
        kv = make_prompt_cache(model)
        model(mx.zeros((1, TRIED_TOKENS), dtype=mx.int32), cache=kv)
        return KvCost.of(kv).per_token  # shapes are known without computing, or reading, anything
    except Exception:  # noqa: BLE001 - whatever mlx-lm says of this model, the start will say it better
        return None
