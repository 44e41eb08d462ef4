"""mlx-lm without any server, in a process of its own: what the model itself takes, whoever serves it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.blas import engine_environment
from stoker.bench.children import BenchmarkError, child
from stoker.bench.report import Json

NAME = "mlx-lm, no server"
TIMEOUT = 3600.0
"""Seconds for it to answer all."""

SCRIPT = Path(__file__).with_name("bare_child.py")


class Bare:
    """Takes turns with the servers; each time it is a process that loads the model first, which isn't counted.

    Args:
        model: A folder.
        home: For what goes between the processes.
    """

    name = NAME

    def __init__(self, model: Path, home: Path) -> None:
        self._model = model
        self._home = home

    def rate(self, bodies: Sequence[Json]) -> float:
        """Tokens per second of all answers together, by mlx-lm's batch generator as its server sets it up."""
        return float(self._run("rate", bodies))

    def first(self, known: Json, body: Json) -> float:
        """Seconds to the first token by mlx-lm's `generate_step`, with the KV of what both prompts begin with."""
        return float(self._run("first", (known, body)))

    def texts(self, bodies: Sequence[Json]) -> list[str]:
        """The answers, one after the other, by `stream_generate`."""
        return list(self._run("texts", bodies))

    def _run(self, what: str, bodies: Sequence[Json]) -> Any:
        asked, found, log = (self._home / f"bare.{name}" for name in ("asked", "found", "log"))
        asked.write_text(json.dumps(list(bodies)), encoding="utf-8")
        command = [sys.executable, str(SCRIPT), what, str(self._model), str(asked), str(found)]
        with child(command, engine_environment(), log) as process:
            if process.wait(TIMEOUT) != 0:
                words = log.read_text(encoding="utf-8", errors="replace")[-800:]
                raise BenchmarkError(f"mlx-lm alone could not answer: {words}")
        return json.loads(found.read_text(encoding="utf-8"))
