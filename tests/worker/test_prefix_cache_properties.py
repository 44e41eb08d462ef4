"""The prefix cache under anything that may be done to it: hypothesis looks for a counterexample."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from stoker.worker.prefix_cache import LEAST_SHARED, PrefixCache
from tests.fakes.fake_layers import BYTES_PER_TOKEN, layers, run

SMALL = st.lists(st.integers(0, 1), min_size=1, max_size=40)


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """The plain way to count common leading tokens."""
    count = 0
    for left, right in zip(first, second, strict=False):
        if left != right:
            break
        count += 1
    return count


@given(entries=st.lists(st.tuples(SMALL, st.booleans()), max_size=6), prompt=SMALL, common=SMALL)
@settings(max_examples=300, deadline=None)
def test_lookup_finds_the_best_that_a_plain_search_finds(
    entries: list[tuple[list[int], bool]], prompt: list[int], common: list[int]
) -> None:
    """For any entries and prompt, the hit is as long as the best by counting, and its layers are cut to it."""
    cache = PrefixCache()
    kept: dict[tuple[int, ...], bool] = {}
    for number, (tail, exact_only) in enumerate(entries):
        tokens = common + tail
        cache.put(tokens, layers(tokens), name=str(number), exact_only=exact_only)
        kept[tuple(tokens)] = exact_only
    prompt = common + prompt
    expected = 0
    for known, exact_only in kept.items():
        count = min(shared(known, prompt), len(prompt) - 1)
        whole = count == len(known)
        if whole or (not exact_only and count >= LEAST_SHARED):
            expected = max(expected, count)
    hit = cache.lookup(prompt)

    assert (hit.length if hit else 0) == expected
    assert hit is None or hit.kv[0].length == hit.length


class CacheMachine(RuleBasedStateMachine):
    """Any sequence of operations keeps the books right."""

    LIMIT = 100 * BYTES_PER_TOKEN

    def __init__(self) -> None:
        super().__init__()
        self.cache = PrefixCache(self.LIMIT)
        self.pinned: dict[str, list[int]] = {}

    @rule(start=st.integers(0, 9), length=st.integers(1, 60), exact_only=st.booleans())
    def put(self, start: int, length: int, exact_only: bool) -> None:
        tokens = run(start * 10, length)
        self.cache.put(tokens, layers(tokens), exact_only=exact_only)

    @rule(name=st.sampled_from("ab"), start=st.integers(0, 9), length=st.integers(1, 60))
    def pin(self, name: str, start: int, length: int) -> None:
        tokens = run(start * 10, length)
        if self.cache.put(tokens, layers(tokens), name=name, pinned=True):
            # Equal tokens under another name: the entry has the new name now.
            self.pinned = {old: kept for old, kept in self.pinned.items() if kept != tokens} | {name: tokens}

    @rule(start=st.integers(0, 9), length=st.integers(1, 70))
    def look(self, start: int, length: int) -> None:
        prompt = run(start * 10, length)
        before = self.cache.statistics()
        hit = self.cache.lookup(prompt)
        after = self.cache.statistics()

        assert (after.hits, after.misses) == (before.hits + bool(hit), before.misses + (not hit))
        assert hit is None or 0 < hit.length < length

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.pinned)))
        assert self.cache.discard(name)
        del self.pinned[name]

    @invariant()
    def books_are_right(self) -> None:
        figures, entries = self.cache.statistics(), self.cache.entries()

        assert figures.bytes == sum(entry.bytes for entry in entries) <= self.LIMIT
        assert figures.entries == len(entries)
        assert figures.pinned == sum(entry.pinned for entry in entries) == len(self.pinned)
        assert self.cache.names() == set(self.pinned)
        assert all(self.cache.covered(tokens) == len(tokens) for tokens in self.pinned.values())


def test_any_sequence_of_operations_keeps_the_books() -> None:
    """Whatever is put, found and dropped in any order, figures add up, the limit holds and pinned entries stay."""
    run_state_machine_as_test(CacheMachine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))
