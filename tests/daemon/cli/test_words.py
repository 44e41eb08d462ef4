from __future__ import annotations

import pytest

from stoker.daemon.cli.words import activity, age, duration, headline, prefixes, printable, size
from stoker.daemon.lifecycle import Phase
from stoker.ipc.control_messages import PrefixStatus, ProgressStatus
from tests.fakes.fake_steward import LOADING, PREFIX, changed


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (1.9, "1.9 s"),
        (59.9, "59 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (7384, "2 h 3 min"),
        (90061, "1 d 1 h"),
    ],
)
def test_durations_are_for_people(seconds: float, words: str) -> None:
    """At most two units, and tenths only where they matter."""
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-9, "just now"), (59, "just now"), (60, "1 min ago"), (7199, "1 h ago"), (3 * 86400 + 1, "3 d ago")],
)
def test_ages_are_for_people(seconds: float, words: str) -> None:
    """One unit, rounded down; what a clock that was set back puts into the future is now."""
    assert age(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(5, "5 B"), (2_500, "2.5 KB"), (412_000_000, "412.0 MB"), (2 << 30, "2.1 GB")]
)
def test_sizes_are_for_people(count: int, words: str) -> None:
    """Decimal units with one digit."""
    assert size(count) == words


def test_what_commands_a_terminal_is_not_printed() -> None:
    """Control characters are replaced; letters of every script stay."""
    assert printable("\x1b[31mrød\x07 \x9b2J 日本\t|") == "\ufffd[31mrød\ufffd \ufffd2J 日本\t|"


def test_a_prefix_that_is_warm_in_part_says_so() -> None:
    """An abandoned warmup shows how far it came, and why."""
    part = PrefixStatus(name="a", tokens=1832, tokens_warm=512, source="prefilled", seconds=1, note="timeout")

    assert prefixes([part]) == "a 512 of 1,832 tokens (prefilled, 1.00 s, timeout)"
    assert prefixes([PREFIX, part]).count("; ") == 1
    assert prefixes([]) == "no prefixes"


@pytest.mark.parametrize("phase", ["down", "starting", "loading", "warming", "stopping", "backoff"])
def test_every_phase_has_words(phase: str) -> None:
    """No phase on the way to ready is without a description."""
    assert headline(changed(LOADING, phase=phase)).startswith("not ready: ")


def test_progress_is_shown_with_its_unit() -> None:
    """What is being done, of how much, and in which generation."""
    progress = ProgressStatus(stage="download", done=1_000_000, total=2_000_000)

    assert headline(changed(LOADING, progress=progress)) == (
        "not ready: downloading the model, 1,000,000 of 2,000,000 bytes (generation 1)"
    )


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.value)
def test_each_phase_has_words(phase: Phase) -> None:
    """Any phase can be told, also that of a worker which counts as ready but is being ended."""
    assert "generation 7" in activity(changed(LOADING, phase=phase.value, progress=None, generation=7))
