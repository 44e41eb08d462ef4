"""The seed's performance tests: its 13 names (3 + 2 + 2 + 2 + 2 + 1 + 1), measured on a tiny real model.

What a busy two-core machine can't show reliably is left to `make bench`, which runs SmolLM2 over HTTP: the ratio of
warm to cold time at 500 and 2,000 tokens, and restart-to-ready. Here, times are medians or the best of some rounds,
and ratios that must hold exactly are counted in tokens computed, not in seconds.
"""

from __future__ import annotations

import gc
import logging
import re
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlx.core as mx
import pytest

from stoker.worker.prefix_cache import PrefixCache
from stoker.worker.warmup import FALLBACK_PROMPT, warmup_kv_cache
from tests.fakes.first_request import Server, prompt_file

pytestmark = pytest.mark.anyio

LONG = "Line after line of instructions.\n" * 90
"""3,000 tokens."""
SHORTER = LONG[: len(LONG) // 3]
"""1,000 tokens, a third of the work."""
END = -1
"""Appended to a prefix, so that a lookup may use all of it."""


@pytest.fixture(scope="module")
def lasting() -> PrefixCache:
    """Where `LONG` stays warm from one test to the next. The tests get copies."""
    return PrefixCache()


@pytest.fixture
async def warm(server: Server, lasting: PrefixCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server with `LONG` warm and nothing counted yet. It is computed by the first test that asks."""
    monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path, LONG))
    assert await warmup_kv_cache(server.model, server.tokenizer, lasting)
    (entry,) = lasting.entries()
    tokens = server.prompt(LONG, "")[: entry.tokens]
    copy = lasting.lookup([*tokens, END])
    assert copy is not None
    assert server.cache.put(tokens, copy.kv, name=entry.name, pinned=entry.pinned)
    return server


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class TestWarmupCompletionTime:
    """How long warmup takes."""

    async def test_warmup_completes_within_60_seconds(self, server: Server) -> None:
        """With the defaults, the built-in prompt is warm within the 60 s that are allowed."""
        start = time.monotonic()
        result = await warmup_kv_cache(server.model, server.tokenizer, server.cache)

        assert result is True
        assert time.monotonic() - start < 60.0

    async def test_warmup_completes_quickly(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """3,000 tokens take far less than 100 s, and a second warmup of them computes nothing."""
        monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path, LONG))
        seconds = []
        for _ in range(2):
            start = time.monotonic()
            assert await warmup_kv_cache(server.model, server.tokenizer, server.cache, timeout_sec=100.0)
            seconds.append(time.monotonic() - start)

        assert seconds[0] < 100.0
        assert seconds[1] < seconds[0] / 2

    async def test_warmup_overhead_is_measured(self, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        """The log says how many tokens were warmed and in how many seconds, and both are right."""
        caplog.set_level(logging.INFO)
        start = time.monotonic()
        await warmup_kv_cache(server.model, server.tokenizer, server.cache)
        elapsed = time.monotonic() - start
        told = re.search(r"warmed (\d+) tokens in ([\d.]+) s", caplog.text)

        assert told is not None
        assert int(told[1]) == server.shared(FALLBACK_PROMPT)
        assert 0 < float(told[2]) <= elapsed + 0.005


class TestFirstRequestLatency:
    """The first request's time."""

    async def test_first_request_hits_cache_within_1_second(self, warm: Server) -> None:
        """The very first one has its first token within a second, with all of the shared prefix from the cache."""
        first = warm.answer(LONG, "What is a stoker?")

        assert first.cached == warm.shared(LONG) > 2900
        assert first.seconds < 1.0

    async def test_cache_operations_are_sub_millisecond(self, warm: Server) -> None:
        """Median of a lookup with its copy under 1 ms, of a put under 5 ms, on a real KV of 3,000 tokens."""
        prompt = warm.prompt(LONG, "What is a stoker?")
        hit = warm.cache.lookup(prompt)
        assert hit is not None
        gets = [timed(lambda: warm.cache.lookup(prompt)) for _ in range(100)]
        puts = [timed(lambda: warm.cache.put(prompt[: hit.length], hit.kv, name="copy")) for _ in range(100)]

        assert statistics.median(gets) < 1e-3
        assert statistics.median(puts) < 5e-3


class TestCacheHitRate:
    """How often warmth helps."""

    async def test_cache_hit_rate_after_warmup(self, warm: Server) -> None:
        """Every chat with the warm prompt hits, whatever its user says; of 25 with 5 foreign ones 80 % do."""
        users = ["Hi", "1", "\n\nx", " x", "é", "日本", "'s", "-", "{", "a" * 300] * 2
        hits = [warm.answer(LONG, user, 1).cached for user in users]
        for number in range(5):
            warm.answer(f"{number} is another prompt.", "Hi", 1)
        figures = warm.cache.statistics()

        assert set(hits) == {warm.shared(LONG)}
        assert figures.hits / (figures.hits + figures.misses) == 20 / 25

    async def test_cache_statistics_after_warmup(self, warm: Server) -> None:
        """Hits, misses, entries, pins, bytes and evictions are exact after a known sequence."""
        before = warm.cache.statistics()
        for user in ("a", "b", "c"):
            warm.answer(LONG, user, 1)
        warm.answer("Something else.", "Hi", 1)
        after = warm.cache.statistics()

        assert (before.hits, before.misses, before.entries, before.pinned) == (0, 0, 1, 1)
        assert (after.hits, after.misses, after.entries, after.pinned) == (3, 1, 1, 1)
        assert (after.bytes, after.evictions) == (before.bytes, 0)


class TestWarmupCacheSizeImpact:
    """What warmth costs."""

    async def test_warmup_memory_usage_is_reasonable(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """MLX's own figure grows by what the statistics say, give or take 10 %, and discarding gives it back."""
        monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path, SHORTER))
        before = active_memory()
        await warmup_kv_cache(server.model, server.tokenizer, server.cache)
        grown = active_memory() - before
        told = server.cache.statistics().bytes
        server.cache.clear()
        left = active_memory() - before

        assert told >= server.shared(SHORTER) * 2 * 2 * 2 * 16 * 4
        assert grown == pytest.approx(told, rel=0.1)
        assert left < told / 10

    async def test_cache_stays_within_memory_limit(self, warm: Server) -> None:
        """Of 12 conversations in a cache with room for 3 the last ones stay; the pinned prefix is never evicted."""
        limit = 4 * warm.cache.statistics().bytes
        cache = PrefixCache(limit)
        small = Server(warm.model, warm.tokenizer, cache)

        def keep(prompt: list[int]) -> None:
            hit = warm.cache.lookup([*warm.prompt(LONG, "Hi"), END])
            assert hit is not None
            cache.put(prompt[: hit.length], hit.kv)

        keep(small.prompt(LONG, "Hi"))  # known already, so that warmup pins it without computing it again
        assert await warmup_kv_cache(small.model, small.tokenizer, cache)
        for number in range(12):
            keep(small.prompt(f"{number} {LONG}", "Hi"))
            assert cache.statistics().bytes <= limit
        figures = cache.statistics()

        assert figures.evictions >= 12 - 3
        assert figures.pinned == 1
        assert small.answer(LONG, "Hi").cached == small.shared(LONG)


class TestWarmupConcurrency:
    """Many at once."""

    async def test_concurrent_cache_accesses_after_warmup(self, warm: Server) -> None:
        """Four threads that answer from the same entry at once answer as one does alone."""
        users = ["What is it?", "Count.", "Why?", "Tell me."]
        alone = [warm.answer(LONG, user).tokens for user in users]
        with ThreadPoolExecutor(max_workers=4) as pool:
            together = list(pool.map(lambda user: warm.answer(LONG, user), users * 4, timeout=60))

        assert [answer.tokens for answer in together] == alone * 4
        assert {answer.cached for answer in together} == {warm.shared(LONG)}

    async def test_warmup_thread_safety(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A cache that threads write, read and discard meanwhile is warm in the end, with its books right."""
        monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path, SHORTER))
        ended = threading.Event()

        def disturb(number: int) -> int:
            rounds = 0
            while not ended.is_set() or rounds < 20:
                tokens = [number, *range(100, 150)]
                server.cache.put(tokens, [], name=str(number))
                server.cache.lookup([*tokens, END])
                server.cache.statistics()
                server.cache.discard(str(number))
                rounds += 1
            return rounds

        with ThreadPoolExecutor(max_workers=3) as pool:
            disturbing = [pool.submit(disturb, number) for number in range(3)]
            try:
                result = await warmup_kv_cache(server.model, server.tokenizer, server.cache)
            finally:
                ended.set()
            rounds = [one.result(timeout=30) for one in disturbing]
        figures = server.cache.statistics()

        assert result is True
        assert min(rounds) >= 20
        assert figures.hits + figures.misses == sum(rounds)
        assert [entry.tokens for entry in server.cache.entries()] == [server.shared(SHORTER)]
        assert figures.bytes == server.cache.entries()[0].bytes


class TestWarmupLatencyDistribution:
    """The slow ones among many."""

    async def test_cache_operation_latency_percentiles(self, warm: Server) -> None:
        """Of 1,000 lookups half take under 1 ms of this thread, 95 % under 5 ms, 99 % under 10 ms."""
        # Processor time, because a lookup waits for nothing, and a busy machine takes the processor away for longer
        # than that. On the wall's clock the median is asserted above.
        prompt = warm.prompt(LONG, "What is a stoker?")
        times = []
        for _ in range(1000):
            start = time.thread_time()
            warm.cache.lookup(prompt)
            times.append(time.thread_time() - start)
        cuts = statistics.quantiles(times, n=100)
        p50, p95, p99 = cuts[49], cuts[94], cuts[98]

        assert p50 < 1e-3
        assert p95 < 5e-3
        assert p99 < 10e-3


class TestWarmupComparisonWithoutCache:
    """Warm against cold."""

    async def test_warmed_cache_is_faster_than_cold(self, warm: Server) -> None:
        """A warm request computes a hundredth of a cold one's tokens, and takes a tenth of its time, at most."""
        # The hundredfold holds for the work, which is counted. In time a model of 64 dimensions shows less of it,
        # because calls cost more than arithmetic. `make bench` has SmolLM2's times; at 4,000 tokens, 108 to 1.
        pairs = [(warm.cold(LONG, user), warm.answer(LONG, user)) for user in ("a", "b", "c")]
        times = [statistics.median(answer.seconds for answer in side) for side in zip(*pairs, strict=True)]

        assert all(cold.computed >= 100 * answer.computed for cold, answer in pairs)
        assert all(cold.tokens == answer.tokens for cold, answer in pairs)
        assert times[0] > 10 * times[1]


def active_memory() -> int:
    """Bytes that MLX's arrays occupy, once what nobody holds is gone."""
    gc.collect()
    mx.clear_cache()
    return mx.get_active_memory()
