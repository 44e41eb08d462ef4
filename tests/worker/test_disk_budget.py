"""The budget is a hard limit, and what goes first is what is cheapest to lose."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.worker.disk_budget import HALF_LIFE, victims, worth
from stoker.worker.store import PrefixStore
from stoker.worker.store_index import Entry
from stoker.worker.store_results import Draft, NotSaved, Saved
from tests.fakes.prefix_files import bytes_in, commit, identity, saved, served, small_disk, store_in, writing

NOW = 1e9


def entry(
    number: int = 0,
    *,
    size: int = 1000,
    seconds: float = 1.0,
    idle: float = 0.0,
    pinned: bool = False,
    foreign: str | None = None,
) -> Entry:
    return Entry(
        key=f"{number:040x}",
        name=None,
        model="tiny",
        packed_tokens=b"",
        size=size,
        sha256="",
        seconds=seconds,
        pinned=pinned,
        created=NOW - idle,
        used=NOW - idle,
        uses=0,
        foreign=foreign,
        mark=None,
    )


def test_worth_is_seconds_for_each_byte_halved_each_week() -> None:
    """Twice the seconds are worth twice as much, twice the bytes half, and a week without use halves it."""
    one = worth(entry(), NOW)

    assert worth(entry(seconds=2.0), NOW) == pytest.approx(2 * one)
    assert worth(entry(size=2000), NOW) == pytest.approx(one / 2)
    assert worth(entry(idle=HALF_LIFE), NOW) == pytest.approx(one / 2)
    assert worth(entry(idle=-5.0), NOW) == pytest.approx(one)


def test_stale_goes_before_cheap_before_pinned() -> None:
    """What only a return of old weights could use goes first, what is pinned last, and only where that is allowed."""
    stale = entry(1, seconds=99.0, pinned=True, foreign="weights changed")
    other = entry(2, seconds=1.0, foreign="another model")
    used, pinned = entry(3, seconds=5.0), entry(4, pinned=True)
    everything = [pinned, used, other, stale]

    assert victims(everything, 3500, NOW, pinned=True) == [stale, other, used, pinned]
    assert victims(everything, 3000, NOW, pinned=False) == [stale, other, used]
    assert victims(everything, 3001, NOW, pinned=False) is None
    assert victims(everything, 0, NOW, pinned=True) == []


@given(
    sizes=st.lists(st.integers(1, 50), max_size=12),
    seconds=st.lists(st.floats(0.1, 100), min_size=12, max_size=12),
    missing=st.integers(-10, 300),
)
def test_no_more_goes_than_must(sizes: list[int], seconds: list[float], missing: int) -> None:
    """What goes is enough, without the last of it it were not, and nothing that stays is worth less."""
    entries = [entry(n, size=size, seconds=seconds[n]) for n, size in enumerate(sizes)]
    going = victims(entries, missing, NOW, pinned=True)

    if going is None:
        assert sum(sizes) < missing
        return
    assert sum(e.size for e in going) >= missing
    assert sum(e.size for e in going[:-1]) < max(1, missing)
    staying = [worth(e, NOW) for e in entries if e not in going]
    assert not going or not staying or max(worth(e, NOW) for e in going) <= min(staying)


def test_the_cheapest_makes_room(tmp_path: Path) -> None:
    """When a fourth doesn't fit, the one of three that saves least goes."""
    store = store_in(tmp_path, 24_000)
    dear, cheap, middle = (saved(store, (n,), seconds=seconds) for n, seconds in enumerate((9.0, 1.0, 5.0)))
    new = saved(store, (9,), seconds=0.1)

    assert {e.key for e in store.entries()} == {dear, middle, new}
    assert served(store, cheap) == "gone"
    assert store.statistics().evicted == 1


def test_pins_hold_against_conversations(tmp_path: Path) -> None:
    """Something unpinned is refused rather than take a pinned entry's place; something pinned may."""
    store = store_in(tmp_path, 12_000)
    saved(store, (1,), pinned=True)
    refused = commit(store, (2,))

    assert isinstance(refused, NotSaved)
    assert refused.reason == "over budget"
    assert store.statistics().not_saved == {"over budget": 1}
    assert store.find((1,)) is not None
    assert isinstance(commit(store, (3,), pinned=True), Saved)


def test_what_can_never_fit_evicts_nothing(tmp_path: Path) -> None:
    """Something larger than the whole budget is refused, and costs nobody a place."""
    store = store_in(tmp_path, 30_000)
    saved(store, (1,))
    assert isinstance(commit(store, (2,), 40_000), NotSaved)
    assert store.find((1,)) is not None


def test_more_than_was_announced_must_fit_too(tmp_path: Path) -> None:
    """Data larger than announced is kept only if the budget allows what it really takes."""
    store = store_in(tmp_path, 50_000)
    fits = store.commit(Draft((1,), 10, 1.0), writing(bytes(20_000)))
    bursts = store.commit(Draft((2,), 10, 1.0, pinned=True), writing(bytes(60_000)))

    assert isinstance(fits, Saved)
    assert fits.size == 20_000
    assert isinstance(bursts, NotSaved)
    assert bytes_in(tmp_path) <= 50_000


def test_a_smaller_budget_holds_from_the_start(tmp_path: Path) -> None:
    """A store opened with less than it holds drops what it must, other models' entries and pins included."""
    store = store_in(tmp_path / "kv")
    saved(store_in(tmp_path / "kv", bound_to=identity("other")), (1,))
    for number in range(5):
        saved(store, (number,), pinned=True)
    store_in(tmp_path / "kv", 15_000)

    assert 0 < bytes_in(tmp_path / "kv") <= 15_000


def test_foreign_and_leftover_files_count(tmp_path: Path) -> None:
    """Stale entries take their share of the budget, and make room before anything of use does."""
    old = store_in(tmp_path, bound_to=identity(weights="w0"))
    for number in range(3):
        saved(old, (number,), seconds=1000.0, pinned=True)
    store = store_in(tmp_path, 24_000)
    assert store.statistics().rejected == {"weights changed": 3}
    saved(store, (7,))

    assert store.statistics().rejected == {"weights changed": 2}
    assert store.find((7,)) is not None


def test_the_reserve_stays_free(tmp_path: Path) -> None:
    """On a volume with less space than the reserve nothing is saved, whatever the budget says."""
    store = store_in(tmp_path, reserve_bytes=1 << 62)
    result = commit(store, (1,))

    assert isinstance(result, NotSaved)
    assert result.reason == "disk full"


def test_the_reserve_is_a_twentieth_by_default(tmp_path: Path) -> None:
    """A small volume is filled to 95 % at most; older entries make room before that."""
    with small_disk(tmp_path / "disk", 1 << 20):
        store = store_in(tmp_path / "disk", reserve_bytes=None)
        for number in range(40):
            saved(store, (number,), 60_000)
        free = store._folder.free()

    assert free[0] >= free[1] // 20
    assert store.statistics().evicted > 0


def test_writers_together_stay_below_the_limit(tmp_path: Path) -> None:
    """Three stores that save at the same time never have more bytes on disk than the budget, at no instant."""
    folder, budget, most = tmp_path / "kv", 200_000, [0]
    stores = [store_in(folder, budget) for _ in range(3)]

    def measured(store: PrefixStore, number: int) -> None:
        for step in range(15):
            commit(store, (number, step), 20_000 + 1000 * step)
            most[0] = max(most[0], sum(size_of(path) for path in folder.iterdir()))

    threads = [threading.Thread(target=measured, args=pair) for pair in zip(stores, range(3), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 100_000 < most[0] <= budget
    assert all(verified.fault is None for verified in stores[0].verify())
    assert stores[0].statistics().saved == 15


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
