"""One budget for weights, running answers, warm prefixes and restored ones, to the byte."""

from __future__ import annotations

import gc
from pathlib import Path

import mlx.core as mx
import pytest

from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import WarmPrefix
from tests.fakes.driven_core import DrivenCore, ask, chat

SYSTEM = "You are the keeper of a store. Whatever is put into it comes out of it as it was, or not at all. " * 3


def held(core: DrivenCore) -> int:
    """Bytes of all entries' layers."""
    return sum(layer.nbytes for entry in core.scheduler.cache._entries.values() for layer in entry.kv)


def in_use() -> int:
    """Bytes that mlx has in use; what earlier tests left is gone."""
    gc.collect()
    return int(mx.get_active_memory())


def test_what_is_warm_is_counted_to_the_byte(tiny_llama: Path) -> None:
    """The cache's bytes are its layers' own, and lie within what mlx has in use, like the batch in flight."""
    core = DrivenCore(tiny_llama)
    before = in_use()
    core.warm(WarmPrefix(name="agent", system=SYSTEM))
    running = core.submit(ask("once upon a time", 50))
    core.turn_until(lambda: len(core.answer(running).tokens) > 2)
    batch = core.scheduler._decoder.nbytes

    assert core.scheduler.cache.statistics().bytes == held(core) > 0
    assert batch > 0
    assert in_use() - before >= held(core) + batch


def test_what_is_restored_is_in_the_budget(tiny_llama: Path, tmp_path: Path) -> None:
    """A prefix from disk takes its bytes of the same budget as a computed one."""
    first = DrivenCore(tiny_llama, store_dir=str(tmp_path))
    first.warm(WarmPrefix(name="agent", system=SYSTEM))
    first.core.close(20.0)
    del first
    core = DrivenCore(tiny_llama, store_dir=str(tmp_path))
    before = in_use()
    assert core.warm(WarmPrefix(name="agent", system=SYSTEM)).prefixes[0].source == "restored"

    assert core.scheduler.cache.statistics().bytes == held(core) > 0
    assert in_use() - before >= held(core)


@pytest.mark.parametrize("lacking", [0, 1])
def test_the_limit_counts_the_batch_in_flight(tiny_llama: Path, lacking: int) -> None:
    """Beside a running answer a request is taken if both fit to the byte, and refused where one byte is missing."""
    core = DrivenCore(tiny_llama)
    core.warm(WarmPrefix(name="agent", system=SYSTEM))
    running = core.submit(ask("once upon a time", 100))
    core.turn_until(lambda: len(core.answer(running).tokens) > 2)
    body = ask("another one", 200)
    scheduler, prompt = core.scheduler, len("another one")
    planned = 2 * scheduler.loaded.cost.bytes(prompt + 200)  # in a batch each takes as much as the longest
    scheduler._guard.limit = in_use() - scheduler._decoder.nbytes + planned - lacking
    refused = core.answer(core.submit(body)).result

    if lacking:
        assert refused.code == ErrorCode.INSUFFICIENT_MEMORY
    else:
        assert refused is None


def test_conversations_never_evict_what_is_pinned(tiny_llama: Path) -> None:
    """A conversation that contains the system prompt, and is evicted in its turn, doesn't take it along.

    mlx-lm's own cache drops the shorter sequence when a longer one is inserted.
    """
    probe = DrivenCore(tiny_llama)
    probe.warm(WarmPrefix(name="agent", system=SYSTEM))
    core = DrivenCore(tiny_llama, prefix_cache_bytes=3 * held(probe))
    tokens = core.warm(WarmPrefix(name="agent", system=SYSTEM)).prefixes[0].tokens
    for number in range(8):
        core.generate(chat(SYSTEM, f"{number}: say something about the store and what is in it", 8))
        core.generate(ask(f"{number}: {'quite another text, of some length, ' * 8}", 8))
    figures = core.scheduler.cache.statistics()

    assert figures.evictions > 8
    assert figures.bytes == held(core) <= figures.limit_bytes
    assert core.generate(chat(SYSTEM, "is it still warm?", 1)).finished.usage.cached_tokens == tokens
