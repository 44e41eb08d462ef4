"""What the developers' table says of workers that were killed and came back."""

from __future__ import annotations

from dataclasses import replace

from bench.restored import checks, data, restored_section, row
from bench.trials import Findings
from stoker.ipc.control_messages import PrefixStatus
from tests.fakes.bench_trials import COMEBACK, GOOD, prefix


def back(report: PrefixStatus | None) -> Findings:
    """A trial after which the next worker's warmup reports this."""
    return Findings(2000, [replace(GOOD, comeback=replace(COMEBACK, report=report))])


def failed(findings: Findings) -> list[str]:
    return [check.promise for check in checks(findings) if not check.ok and not check.target]


def test_restored_prefix_passes() -> None:
    """A prefix from disk, found as a whole, with the cold text: nothing is wrong, and the ratios are of medians."""
    findings = Findings(2000, [GOOD])

    assert failed(findings) == []
    assert row(findings)[:4] == ("2000 tokens", "14.0 s", "100 ms", "350 ms")
    assert row(findings)[4:] == ("40.0x", "1.35x (1.30-1.40)", "2000 of 2000", "yes")
    assert data(findings)["cold_to_restored"]["median"] == 40
    assert data(findings)["sources"] == ["restored"]


def test_a_target_is_judged_from_2000_tokens_on() -> None:
    """That restored is about as quick as resident is asked of long prompts, and a busy machine may miss it."""
    short = Findings(500, [replace(GOOD, cold=replace(GOOD.cold, prompt_tokens=512))])

    assert [check.promise for check in checks(Findings(2000, [GOOD])) if check.target] == [
        "2000 tokens: restored within 1.3x of resident"
    ]
    assert not any(check.target for check in checks(short))


def test_what_was_not_restored_was_not_read() -> None:
    """Where the prefix was computed again, or not at all, the table has no time from disk."""
    computed, absent = back(prefix("learned-1a2b3c4d")), back(None)

    assert [row(one)[2] for one in (computed, absent)] == ["-", "-"]
    assert [data(one)["sources"] for one in (computed, absent)] == [["prefilled"], [None]]
    assert failed(computed) == failed(absent) != []


def test_the_table_has_a_row_for_each_size() -> None:
    """Stoker's, with tools or without; nothing is promised of the peer."""
    section = restored_section([Findings(2000, [GOOD]), Findings(4000, [GOOD], "stoker, with tools")])

    assert [row[0] for row in section.rows] == ["2000 tokens", "4000 tokens and tools"]
    assert len(section.data["results"]) == 2
