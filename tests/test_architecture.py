"""What may not be loaded where, seen in a fresh interpreter: the import contracts only read the source."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

ENGINES = ("mlx", "mlx_lm", "transformers", "tokenizers", "numpy", "huggingface_hub", "stoker.worker")
"""What the daemon never loads: it would cost memory, seconds, and the worker's faults."""

IMPORT_ALL = """
import importlib, json, pkgutil, sys
package = importlib.import_module(sys.argv[1])
names = [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(json.dumps({"imported": names, "loaded": sorted(sys.modules)}))
"""


def loaded_by(code: str, *arguments: str) -> Any:
    """What the code, run in a fresh interpreter, prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def is_engine(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in ENGINES)


@pytest.mark.parametrize(
    ("package", "known"),
    [
        ("stoker.daemon", "stoker.daemon.machine"),
        ("stoker.ipc", "stoker.ipc.framing"),
        ("stoker.launchd", None),
        ("stoker.bench", "stoker.bench.plot"),
    ],
)
def test_no_engine_outside_the_worker(package: str, known: str | None) -> None:
    """Importing every module of daemon, ipc, launchd and bench loads neither an engine nor the worker."""
    result = loaded_by(IMPORT_ALL, package)

    assert known is None or known in result["imported"]
    assert [module for module in result["loaded"] if is_engine(module)] == []


def test_framing_loads_no_input_or_output() -> None:
    """Frames are read and written without any I/O library."""
    loaded = loaded_by("import sys, json, stoker.ipc.framing; print(json.dumps(sorted(sys.modules)))")

    assert {"anyio", "asyncio", "structlog", "aiohttp"}.isdisjoint(loaded)
