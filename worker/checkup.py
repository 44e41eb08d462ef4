"""A look at engine and model without serving anything: `python -m stoker.worker.checkup MODEL CACHE_DIR`.

`stoker doctor` runs it in the environment that a worker would get. It prints one JSON object, reads headers only, and
downloads and converts nothing.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .errors import WorkerError


def main() -> None:
    """Print what is found."""
    model, cache_dir = sys.argv[1:]
    sys.stdout.write(json.dumps(look(model, Path(cache_dir))) + "\n")


def look(model: str, cache_dir: Path) -> dict[str, Any]:
    """What a worker would find.

    Returns:
        `engine` (versions and device) or `engine_problem`; and of the model `model_bytes`, `kv_bytes_per_token` and
        `context_tokens`, or `absent` where a start would fetch or convert it first, or `model_problem` and `remedy`.
    """
    try:
        import mlx.core as mx  # noqa: PLC0415 - that it can be imported is the question

        from .mlx_engine.inspection import inspected  # noqa: PLC0415 - it imports mlx-lm
    except Exception as error:  # noqa: BLE001 - a broken installation raises anything; what it said is the finding
        return {"engine_problem": f"{type(error).__name__}: {error}"}
    engine = {"mlx": version("mlx"), "mlx_lm": version("mlx-lm"), "device": str(mx.default_device())}
    try:
        return {"engine": engine, **inspected(model, cache_dir)}
    except WorkerError as error:
        return {"engine": engine, "model_problem": error.message, "remedy": error.data.remedy}


if __name__ == "__main__":
    main()
