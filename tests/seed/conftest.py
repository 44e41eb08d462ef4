"""What the seed's tests share: a tiny real model behind an empty cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from stoker.worker.prefix_cache import PrefixCache

if TYPE_CHECKING:
    from tests.fakes.first_request import Server
    from tests.fakes.tiny_models import Kind


@pytest.fixture
def server(tiny_loaded: Callable[[Kind], tuple[Any, Any]]) -> Server:
    """A tiny llama, nothing warm."""
    from tests.fakes.first_request import Server  # noqa: PLC0415 - imports mlx

    model, tokenizer = tiny_loaded("llama")
    return Server(model, tokenizer, PrefixCache())
