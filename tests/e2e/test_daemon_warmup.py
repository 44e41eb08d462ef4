"""A warmup that runs out of time, in a whole daemon with a real worker: what is warm then, and afterwards."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from tests.fakes.greedy_answers import ask
from tests.fakes.running_daemon import DEADLINE, out_of_time
from tests.fakes.tiny_models import roomy

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def patient_llama(tiny_llama: Path, tmp_path: Path) -> Path:
    """A tiny model with room for a prompt that takes it seconds."""
    return roomy(tiny_llama, tmp_path / "patient")


async def test_warmup_timeout_is_ready_and_uses_what_there_is(patient_llama: Path, tmp_path: Path) -> None:
    """A warmup that runs out of time leaves the service ready, not warm, and says why; the first request uses it."""
    system = " ".join(f"Rule {number}: be brief." for number in range(500))
    prompt = tmp_path / "long.txt"
    prompt.write_text(system, encoding="utf-8")
    environ = {"WARMUP_SYSTEM_FILE": str(prompt), "WARMUP_TIMEOUT_SEC": "0.3", "STOKER_CHUNK_SECONDS": "0.02"}
    async with out_of_time(patient_llama, environ) as (daemon, readiness):
        with anyio.fail_after(DEADLINE):
            async with daemon.control() as control:
                while not (prefixes := (await control.status()).prefixes):  # noqa: ASYNC110 - it is another process
                    await anyio.sleep(0.05)
        _, cached = await ask((await daemon.status()).http, "Hello?", system=system, max_tokens=1)

    assert (readiness.warm, readiness.reason, readiness.warmup.outcome) == (False, "timeout", "abandoned")
    assert readiness.warmup.seconds == 0.3
    assert 0 < prefixes[0].tokens_warm < prefixes[0].tokens
    assert cached >= prefixes[0].tokens_warm


async def test_idle_time_makes_it_warm_after_all(patient_llama: Path, tmp_path: Path) -> None:
    """What an abandoned warmup had left is finished in idle time; whoever watches is told that it is warm then."""
    prompt = tmp_path / "long.txt"
    prompt.write_text(" ".join(f"Rule {number}: be brief." for number in range(200)), encoding="utf-8")
    environ = {"WARMUP_SYSTEM_FILE": str(prompt), "WARMUP_TIMEOUT_SEC": "0.2", "STOKER_CHUNK_SECONDS": "0.02"}
    async with out_of_time(patient_llama, environ) as (daemon, first):
        with anyio.fail_after(DEADLINE):
            async with daemon.control() as control, aclosing(control.watch()) as snapshots:
                async for now in snapshots:
                    if now.warm:
                        break

    assert (first.warm, first.reason) == (False, "timeout")
    assert (now.ready, now.reason, now.generation) == (True, None, first.generation)
    assert [prefix.tokens_warm for prefix in now.warmup.prefixes] == [prefix.tokens for prefix in now.warmup.prefixes]
