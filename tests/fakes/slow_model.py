"""A model of which each forward takes as long as a test says, on the test's own clock."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stoker.worker import warmup


class SlowModel:
    """Computes what `model` does. Each forward moves the clock by `seconds`, and takes no time.

    Args:
        model: The model.
        seconds: For each forward.
        patch: Puts the clock in the place of warmup's.
    """

    def __init__(self, model: Any, seconds: float, patch: pytest.MonkeyPatch) -> None:
        self._model = model
        self._seconds = seconds
        self.now = 0.0
        self.forwards = 0
        patch.setattr(warmup, "time", SimpleNamespace(monotonic=lambda: self.now))

    def __call__(self, *args: Any, **how: Any) -> Any:
        self.forwards += 1
        self.now += self._seconds
        return self._model(*args, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
