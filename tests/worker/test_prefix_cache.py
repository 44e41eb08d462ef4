"""The prefix cache: what is found, what is kept, what goes."""

from __future__ import annotations

import statistics
import threading
import time

import pytest

from stoker.worker.prefix_cache import LEAST_SHARED, PrefixCache, cache_key
from tests.fakes.fake_layers import BYTES_PER_TOKEN, layers, run


class TestLookup:
    """What a prompt finds."""

    def test_an_empty_cache_misses(self) -> None:
        """Nothing kept, nothing found, one miss counted."""
        cache = PrefixCache()

        assert cache.lookup(run(0, 50)) is None
        assert cache.statistics().misses == 1

    def test_the_longest_prefix_wins(self) -> None:
        """Of two entries that fit, the longer serves, and says its name."""
        cache = PrefixCache()
        cache.put(run(0, 20), layers(run(0, 20)), name="short")
        cache.put(run(0, 40), layers(run(0, 40)), name="long")
        hit = cache.lookup(run(0, 60))

        assert hit is not None
        assert (hit.length, hit.name, hit.kv[0].length) == (40, "long", 40)

    def test_one_token_is_always_left_to_compute(self) -> None:
        """An entry equal to the prompt serves all but its last token, whose logits are needed."""
        cache = PrefixCache()
        cache.put(run(0, 30), layers(run(0, 30)))
        hit = cache.lookup(run(0, 30))

        assert hit is not None
        assert (hit.length, hit.kv[0].length) == (29, 29)

    def test_a_diverging_entry_is_cut_to_what_is_shared(self) -> None:
        """A trimmable entry serves the part before the first different token."""
        cache = PrefixCache()
        cache.put(run(0, 100), layers(run(0, 100)))
        hit = cache.lookup([*run(0, 33), 999, 998])

        assert hit is not None
        assert (hit.length, hit.kv[0].length) == (33, 33)

    def test_a_few_shared_tokens_are_no_hit(self) -> None:
        """Two prompts that share little more than a role marker don't share KV; a whole short entry is served."""
        cache = PrefixCache()
        cache.put(run(0, 100), layers(run(0, 100)))

        assert cache.lookup([*run(0, LEAST_SHARED - 1), 999, 998]) is None
        cache.put([7, 8], layers([7, 8]))
        hit = cache.lookup([7, 8, 9])
        assert hit is not None
        assert hit.length == 2

    @pytest.mark.parametrize(
        ("prompt", "length"),
        [(run(0, 41), 40), (run(0, 40), None), ([*run(0, 39), 999, 998], None), (run(0, 20), None)],
        ids=["longer", "equal", "diverging", "shorter"],
    )
    def test_an_exact_entry_serves_only_prompts_that_go_beyond_it(
        self, prompt: list[int], length: int | None
    ) -> None:
        """An entry that can't be trimmed is served whole or not at all."""
        cache = PrefixCache()
        cache.put(run(0, 40), layers(run(0, 40)), exact_only=True)
        hit = cache.lookup(prompt)

        assert (hit and hit.length) == length

    def test_an_entry_is_never_touched_by_its_copies(self) -> None:
        """A caller may write to a hit's layers: the next hit is whole again."""
        cache = PrefixCache()
        cache.put(run(0, 40), layers(run(0, 40)))
        first = cache.lookup(run(0, 41))
        assert first is not None
        first.kv[0].trim(40)
        second = cache.lookup(run(0, 41))

        assert second is not None
        assert second.kv[0].length == 40

    def test_covered_counts_whole_prompts_and_no_hits(self) -> None:
        """`covered` may say that all of a prompt is warm, and leaves statistics and recency alone."""
        cache = PrefixCache(limit_bytes=60 * BYTES_PER_TOKEN)
        cache.put(run(0, 30), layers(run(0, 30)), name="old")
        cache.put(run(500, 30), layers(run(500, 30)), name="new")

        assert cache.covered(run(0, 30)) == 30
        assert cache.covered(run(900, 5)) == 0
        assert (cache.statistics().hits, cache.statistics().misses) == (0, 0)
        cache.put(run(800, 30), layers(run(800, 30)), name="newest")
        assert cache.names() == {"new", "newest"}


class TestRoom:
    """What is kept, and what goes."""

    def test_the_least_recently_used_goes_first(self) -> None:
        """A lookup refreshes an entry, so that another one is evicted."""
        cache = PrefixCache(limit_bytes=100 * BYTES_PER_TOKEN)
        cache.put(run(0, 40), layers(run(0, 40)), name="a")
        cache.put(run(1000, 40), layers(run(1000, 40)), name="b")
        cache.lookup(run(0, 41))
        cache.put(run(2000, 40), layers(run(2000, 40)), name="c")

        assert cache.names() == {"a", "c"}
        assert cache.statistics().evictions == 1

    def test_pinned_entries_stay(self) -> None:
        """However much comes after it, a pinned entry is never evicted."""
        cache = PrefixCache(limit_bytes=100 * BYTES_PER_TOKEN)
        cache.put(run(0, 40), layers(run(0, 40)), name="system", pinned=True)
        for start in range(1000, 20_000, 1000):
            cache.put(run(start, 50), layers(run(start, 50)))

        assert cache.covered(run(0, 40)) == 40
        assert cache.statistics().pinned == 1

    def test_what_cannot_fit_changes_nothing(self) -> None:
        """A put that would need a pinned entry's room is refused, and evicts nobody for nothing."""
        cache = PrefixCache(limit_bytes=100 * BYTES_PER_TOKEN)
        cache.put(run(0, 60), layers(run(0, 60)), name="system", pinned=True)
        cache.put(run(1000, 30), layers(run(1000, 30)), name="other")
        before = cache.statistics()

        assert not cache.put(run(2000, 41), layers(run(2000, 41)))
        assert cache.statistics() == before
        assert cache.names() == {"system", "other"}

    def test_the_same_name_replaces(self) -> None:
        """A second put under a name leaves one entry, the new one, and its bytes only."""
        cache = PrefixCache()
        cache.put(run(0, 60), layers(run(0, 60)), name="system", pinned=True)
        cache.put(run(500, 20), layers(run(500, 20)), name="system", pinned=True)

        assert [(entry.name, entry.tokens) for entry in cache.entries()] == [("system", 20)]
        assert cache.statistics().bytes == 20 * BYTES_PER_TOKEN

    def test_a_replacement_that_does_not_fit_leaves_the_old(self) -> None:
        """Where the new entry of a name is too large, the old one goes on serving."""
        cache = PrefixCache(limit_bytes=50 * BYTES_PER_TOKEN)
        cache.put(run(0, 40), layers(run(0, 40)), name="system")

        assert not cache.put(run(0, 60), layers(run(0, 60)), name="system")
        assert cache.covered(run(0, 40)) == 40

    def test_a_request_does_not_unpin(self) -> None:
        """A finished request with the tokens of a pinned entry leaves that entry, its name and its pin."""
        cache = PrefixCache()
        cache.put(run(0, 40), layers(run(0, 40)), name="system", pinned=True)

        assert cache.put(run(0, 40), layers(run(0, 40)))
        assert [(entry.name, entry.pinned) for entry in cache.entries()] == [("system", True)]

    def test_a_conversation_keeps_one_entry(self) -> None:
        """A later turn takes the place of earlier ones, but not of the warm prefix that they share."""
        cache = PrefixCache()
        cache.put(run(0, 40), layers(run(0, 40)), name="system", pinned=True)
        for turn in (60, 80, 100):
            cache.put(run(0, turn), layers(run(0, turn)))

        assert [entry.tokens for entry in cache.entries()] == [40, 100]
        assert cache.statistics().evictions == 0

    def test_evict_makes_memory_but_spares_what_is_pinned(self) -> None:
        """Asked for bytes, the oldest unpinned entries go until they are free, or until only pinned ones are left."""
        cache = PrefixCache()
        cache.put(run(0, 40), layers(run(0, 40)), name="system", pinned=True)
        for start in (100, 200, 300):
            cache.put(run(start, 40), layers(run(start, 40)), name=str(start))

        assert cache.evict(41 * BYTES_PER_TOKEN) == 80 * BYTES_PER_TOKEN
        assert cache.names() == {"system", "300"}
        assert cache.evict(10**9) == 40 * BYTES_PER_TOKEN
        assert cache.names() == {"system"}
        assert (cache.statistics().evictions, cache.statistics().bytes) == (3, 40 * BYTES_PER_TOKEN)

    def test_discard_and_clear_drop_pinned_entries_too(self) -> None:
        """Both give the bytes back; discarding an unknown name says so."""
        cache = PrefixCache()
        cache.put(run(0, 40), layers(run(0, 40)), name="a", pinned=True)
        cache.put(run(100, 40), layers(run(100, 40)), name="b", pinned=True)

        assert cache.discard("a")
        assert not cache.discard("a")
        assert cache.statistics().bytes == 40 * BYTES_PER_TOKEN
        cache.clear()
        assert (cache.entries(), cache.statistics().bytes) == ((), 0)

    def test_nonsense_is_refused(self) -> None:
        """A negative limit and an entry without tokens are errors that say what is allowed."""
        with pytest.raises(ValueError, match="0"):
            PrefixCache(limit_bytes=-1)
        with pytest.raises(ValueError, match="at least one token"):
            PrefixCache().put([], [])


class TestCacheKey:
    """Stable names for prompts."""

    def test_a_key_is_stable_and_distinguishes(self) -> None:
        """Equal prompts have equal keys in every process; texts and tokens never share one."""
        assert cache_key([1, 2]) == cache_key((1, 2)) != cache_key([12])
        assert cache_key("héllo") == "dea263d0f7ebcf37fb04bb2123504e7a8c0233561e4292faf6fd4628b9c96be2"
        assert len({cache_key(""), cache_key([]), cache_key("a"), cache_key([97])}) == 4


def test_threads_share_it() -> None:
    """Threads that put and look up at once lose no count, break no limit, and get only copies of their own."""
    cache = PrefixCache(limit_bytes=300 * BYTES_PER_TOKEN)
    wrong: list[str] = []

    def work(number: int) -> None:
        for turn in range(200):
            tokens = run(1000 * ((number + turn) % 6), 50)
            cache.put(tokens, layers(tokens))
            hit = cache.lookup([*tokens, 5])
            if hit is not None and hit.kv[0].length != hit.length:
                wrong.append(f"{hit.kv[0].length} != {hit.length}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    figures = cache.statistics()
    assert wrong == []
    assert figures.hits + figures.misses == 6 * 200
    assert figures.bytes == sum(entry.bytes for entry in cache.entries()) <= figures.limit_bytes


def test_many_long_entries_are_searched_in_a_millisecond() -> None:
    """64 entries of 4,000 tokens that differ in the last: a median lookup under 1 ms, a put under 5 ms."""
    cache = PrefixCache(limit_bytes=10**9)
    puts, lookups = [], []
    for number in range(64):
        tokens = [*run(0, 3999), 5000 + number]
        start = time.perf_counter()
        cache.put(tokens, layers(tokens), name=str(number))
        puts.append(time.perf_counter() - start)
    for _ in range(50):
        prompt = [*run(0, 3999), 5063, 1, 2, 3]
        start = time.perf_counter()
        hit = cache.lookup(prompt)
        lookups.append(time.perf_counter() - start)
        assert hit is not None
        assert hit.length == 4000

    assert statistics.median(lookups) < 1e-3
    assert statistics.median(puts) < 5e-3
