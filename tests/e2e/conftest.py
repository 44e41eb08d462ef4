"""One daemon for a file, whose model says what the last message names, and the vendors' SDKs before it."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.fakes.running_daemon import DEADLINE
from tests.fakes.scripted_model import SCRIPTS, write_scripted_model
from tests.fakes.served import served


@pytest.fixture(scope="module")
def scripted_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where it listens. Beside the usual scripts it has one in JSON."""
    model = tmp_path_factory.mktemp("models") / "scripted"
    write_scripted_model(model, {**SCRIPTS, "json": '{"city": "Quito"}'})
    with served(model, {"KV_CACHE_WARMUP": "0"}) as address:
        yield address


@pytest.fixture(scope="module")
def client(scripted_url: str) -> Iterator[openai.OpenAI]:
    """OpenAI's client."""
    with openai.OpenAI(base_url=f"{scripted_url}/v1", api_key="none", max_retries=0, timeout=DEADLINE) as api:
        yield api


@pytest.fixture(scope="module")
def claude(scripted_url: str) -> Iterator[anthropic.Anthropic]:
    """Anthropic's client."""
    with anthropic.Anthropic(base_url=scripted_url, api_key="none", max_retries=0, timeout=DEADLINE) as api:
        yield api
