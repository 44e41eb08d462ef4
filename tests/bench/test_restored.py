"""What is concluded from workers that were killed and came back."""

from __future__ import annotations

from bench.comeback import Comeback, report_of
from bench.restored import Findings, restored_section
from bench.stopwatch import Answer
from bench.trials import Trial
from stoker.ipc.control_messages import PrefixStatus


def prefix(name: str = "learned-1a2b3c4d", source: str = "restored", *, tokens: int = 2000) -> PrefixStatus:
    return PrefixStatus(name=name, tokens=tokens, tokens_warm=tokens, source=source, seconds=0.1)


def answer(first: float, cached: int = 2000, text: str = "Paris") -> Answer:
    return Answer(first, first + 1, text, 2012, cached)


def trial(report: PrefixStatus | None, *, first: Answer | None = None, again: Answer | None = None) -> Trial:
    rewarmed = PrefixStatus(name="bench", tokens=2000, tokens_warm=2000, source="prefilled", seconds=14)
    comeback = Comeback(report, first or answer(0.35, text="Red"), again or answer(0.28))
    return Trial(answer(14.0, 0), (answer(0.25), answer(0.25)), answer(0.28), rewarmed, comeback)


def failed(*trials: Trial) -> list[str]:
    return [check.promise for check in Findings(2000, trials).checks() if not (check.ok or check.target)]


def test_restored_prefix_passes() -> None:
    """A prefix from disk, found as a whole, with the cold text: nothing is wrong, and the ratios are of medians."""
    findings = Findings(2000, [trial(prefix())])

    assert failed(*findings.trials) == []
    assert findings.row() == (
        "2000 tokens",
        "14.0 s",
        "100 ms",
        "350 ms",
        "40.0x",
        "1.40x",
        "2000 of 2000",
        "yes",
    )
    assert findings.data()["restored_to_warm"]["median"] == 1.4
    assert [check.promise for check in findings.checks() if check.target] == [
        "2000 tokens: restored within 1.3x of resident"
    ]
    assert findings.data()["sources"] == ["restored"]


def test_only_the_first_request_is_timed() -> None:
    """The repeated request is there for its text: it finds a worker that has answered before."""
    assert Findings(2000, [trial(prefix()), trial(prefix())]).restored.values == (0.35, 0.35)


def test_prefix_that_was_computed_again_is_wrong() -> None:
    """One successor that computed the prefix, or did not warm it at all, fails the run; it was not read either."""
    computed, absent = trial(prefix(source="prefilled")), trial(None)
    promise = "2000 tokens: after kill -9 the learned prefix is restored from disk, without anyone asking"

    assert failed(trial(prefix()), computed) == [promise]
    assert failed(absent) == [promise]
    assert Findings(2000, [absent]).row()[2] == "-"
    assert Findings(2000, [absent]).data()["sources"] == [None]


def test_partly_restored_prefix_is_wrong() -> None:
    """A prefix whose end is missing was not restored as a whole."""
    part = PrefixStatus(name="learned-1a2b3c4d", tokens=2000, tokens_warm=1999, source="restored", seconds=0.1)

    assert len(failed(trial(part))) == 1


def test_request_that_reused_a_token_less_is_wrong() -> None:
    """The first request counts and so does the repeated one; the table shows the worst."""
    short = trial(prefix(), first=answer(0.35, 1999))

    assert failed(trial(prefix()), short) == [
        "2000 tokens: every request then reuses the whole shared prefix, and no more"
    ]
    assert failed(trial(prefix(), again=answer(0.28, 1999))) == failed(short)
    assert Findings(2000, [trial(prefix()), short]).row()[-2] == "1999 of 2000"


def test_different_text_is_wrong() -> None:
    """An answer from a restored prefix that isn't the cold one's text fails the run."""
    assert failed(trial(prefix(), again=answer(0.28, text="Lyon"))) == ["2000 tokens: restored text is the cold text"]


def test_report_is_found_by_its_length() -> None:
    """Among the prefixes of a warmup the learned one of that length is meant, not a configured one."""
    wanted = prefix()
    others = (prefix("system"), prefix("learned-5e6f7a8b", tokens=500))

    assert report_of(2000, (*others, wanted)) is wanted
    assert report_of(2000, others) is None


def test_peer_does_not_come_back() -> None:
    """The table has Stoker's rows only: nothing is promised of the peer."""
    peer = [Trial(answer(20.0, 0), (answer(0.5),))]
    section = restored_section({(2000, "stoker"): [trial(prefix())], (2000, "peer"): peer})

    assert [row[0] for row in section.rows] == ["2000 tokens"]
    assert all(check.ok or check.target for check in section.checks)
