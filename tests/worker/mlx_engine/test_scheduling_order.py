"""Who is computed when."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.ipc.messages import Warm, WarmPrefix
from tests.fakes.driven_core import CHUNKED, LONG, DrivenCore, ask
from tests.fakes.tiny_models import PROBES


def test_shortest_prompt_goes_first(tiny_llama: Path) -> None:
    """A short request that comes after a long one has begun overtakes it."""
    core = DrivenCore(tiny_llama, **CHUNKED)
    long = core.submit(ask(LONG * 3, 3))
    core.core.turn()
    short = core.submit(ask("short", 3))
    core.finish(short)

    assert core.answer(long).tokens == ()
    assert len(core.finish(long).tokens) == 3


def test_long_prompt_does_not_starve(tiny_llama: Path) -> None:
    """A request that has waited as long as it takes to serve goes before newcomers."""
    core = DrivenCore(tiny_llama, **CHUNKED)
    long = core.submit(ask(LONG, 1))
    core.scheduler._waiting[long].submitted -= 3600
    core.submit(ask("short", 1))

    core.core.turn()

    assert core.answer(long).progress[-1].done > 0


def test_decoding_goes_on_between_chunks(tiny_llama: Path) -> None:
    """While a long prompt is prefilled, a running answer gets a token with each chunk."""
    core = DrivenCore(tiny_llama, **CHUNKED)
    running = core.submit(ask("short", 100))
    core.turn_until(lambda: len(core.answer(running).tokens) > 2)
    long = core.submit(ask(LONG, 1))
    before, chunks = len(core.answer(running).tokens), 0
    while core.answer(long).result is None:
        core.core.turn()
        chunks += 1

    assert chunks > 5
    assert len(core.answer(running).tokens) >= before + chunks - 1


@pytest.mark.parametrize(("chunk_seconds", "begun"), [(600.0, 4), (1e-9, 1)])
def test_prompts_that_fit_into_a_chunks_time_join_together(
    tiny_llama: Path, chunk_seconds: float, begun: int
) -> None:
    """In one turn as many prompts are computed as fit into a chunk's time, and one in any case."""
    core = DrivenCore(tiny_llama, chunk_seconds=chunk_seconds)
    requests = [core.submit(ask(probe, 6)) for probe in (*PROBES, "short")]
    core.core.turn()

    assert len([request for request in requests if core.answer(request).tokens]) == begun


def test_turn_does_not_overfill_the_batch(tiny_llama: Path) -> None:
    """However much fits into a chunk's time, no more sequences begin than may decode together."""
    core = DrivenCore(tiny_llama, max_batch=2, chunk_seconds=600.0)
    requests = [core.submit(ask(probe, 6)) for probe in PROBES]
    core.core.turn()

    assert len([request for request in requests if core.answer(request).tokens]) == 2


def test_users_go_before_warmups(tiny_llama: Path) -> None:
    """A request that comes during a warmup is prefilled wholly before the warmup's next chunk."""
    core = DrivenCore(tiny_llama, **CHUNKED)
    warmup = core.submit(Warm(prefixes=(WarmPrefix(name="main", system=LONG),)))
    core.core.turn()
    core.core.turn()
    before = core.answer(warmup).progress[-1].done
    request = core.submit(ask(LONG, 1))
    core.finish(request)

    assert core.answer(warmup).progress[-1].done == before > 0
    assert core.finish(warmup).result.outcome == "succeeded"


def test_batch_is_bounded(tiny_llama: Path) -> None:
    """No more sequences than allowed decode together; the others wait, uncomputed, and are served."""
    core = DrivenCore(tiny_llama, max_batch=2)
    requests = [core.submit(ask(probe, 6)) for probe in (*PROBES, *PROBES)]
    core.turn_until(lambda: len([request for request in requests if core.answer(request).tokens]) == 2)
    core.core.turn()
    begun = [request for request in requests if core.answer(request).progress[-1].done > 0]
    answers = [core.finish(request) for request in requests]

    assert len(begun) == 2
    assert max(len({delta.target for delta in step.deltas}) for step in core.steps) == 2
    assert answers[0].tokens == answers[3].tokens
