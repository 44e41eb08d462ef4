"""What is concluded from trials."""

from __future__ import annotations

from dataclasses import replace

from bench.agent import NAME
from bench.comeback import Comeback
from bench.stopwatch import Answer
from bench.trials import Findings, Trial, warmth_section
from stoker.ipc.control_messages import PrefixStatus


def answer(first: float, cached: int = 0, text: str = "Paris", prompt: int = 2012) -> Answer:
    return Answer(first, first + 1, text, prompt, cached)


def trial(*, again: Answer, others: tuple[Answer, ...], cold: Answer | None = None) -> Trial:
    prefix = PrefixStatus(name="bench", tokens=2000, tokens_warm=2000, source="prefilled", seconds=14)
    return Trial(cold or answer(14.0), others, again, prefix)


def failed(findings: Findings) -> list[str]:
    return [check.promise for check in findings.checks() if not check.ok]


PREFIX = PrefixStatus(name="bench", tokens=6000, tokens_warm=6000, source="prefilled", seconds=90)
GOOD = trial(again=answer(0.28, 2000), others=(answer(0.25, 2000, "Red"), answer(0.27, 2000, "Seven")))


def test_good_trial_passes() -> None:
    """A cold request that was cold, a whole prefix found each time and the same text: nothing is wrong."""
    findings = Findings(2000, "stoker", [GOOD])

    assert failed(findings) == []
    assert findings.row()[-2:] == ("2000 of 2000", "yes")
    assert findings.data()["cold_to_first_warm"]["median"] == 50


def test_partly_cached_request_is_wrong() -> None:
    """One warm request that found a token less than the whole prefix fails the run."""
    short = trial(again=answer(0.28, 2000), others=(answer(0.25, 1999),))
    findings = Findings(2000, "stoker", [GOOD, short])

    assert findings.missed == 1
    assert failed(findings) == ["2000 tokens: every warm request reuses the whole shared prefix, and no more"]


def test_different_text_is_wrong() -> None:
    """A warm answer that isn't the cold one's text fails the run."""
    other = trial(again=answer(0.28, 2000, "Lyon"), others=(answer(0.25, 2000),))
    findings = Findings(2000, "stoker", [GOOD, other])

    assert not findings.identical
    assert failed(findings) == ["2000 tokens: warm text is the cold text"]


def test_cold_request_that_was_warm_is_wrong() -> None:
    """A cold request that found its system prompt cached fails the run."""
    findings = Findings(2000, "stoker", [trial(again=GOOD.warm[0], others=GOOD.others, cold=answer(0.3, 2000))])

    assert "2000 tokens: cold requests were cold" in failed(findings)


def test_target_is_judged_at_2000_tokens_only() -> None:
    """Thirty times sooner is asked of 2,000 tokens; at 500 the same figures are only shown."""
    slow = trial(again=answer(1.0, 2000), others=GOOD.others)
    short = Trial(answer(14.0, prompt=512), GOOD.others, GOOD.again, GOOD.prefix)

    assert [check.target for check in Findings(2000, "stoker", [slow]).checks() if not check.ok] == [True]
    assert not any(check.target for check in Findings(500, "stoker", [short]).checks())


def test_peer_has_no_rewarm() -> None:
    """The peer's row has its cold and its warm figures, no first warm, and no checks: they are not its promises."""
    peer = [Trial(answer(20.0), (answer(0.5, 2000),))]
    section = warmth_section({(2000, "stoker"): [GOOD], (2000, "peer"): peer})

    assert [row[0] for row in section.rows] == ["stoker, 2000 tokens", "peer, 2000 tokens"]
    assert section.rows[1][3] == section.rows[1][8] == "-"
    assert len(section.checks) == len(Findings(2000, "stoker", [GOOD]).checks())


def test_an_agent_s_request_is_to_be_a_hundred_times_sooner() -> None:
    """Warm and restored are judged where the prompt is as long as an agent's, tools included."""
    comeback = Comeback(None, answer(0.9, 6000), answer(0.9, 6000))
    one = Trial(answer(100.0, prompt=6800), (answer(0.8, 6000),), answer(0.9, 6000), PREFIX, comeback, messages=6000)
    slow = replace(one, comeback=replace(comeback, first=answer(2.0, 6000)))

    assert failed(Findings(4000, NAME, [one])) == []
    assert failed(Findings(4000, NAME, [slow])) == [
        "4000 tokens and tools: restored after kill -9 at least 100x sooner than cold"
    ]


def test_a_request_in_the_other_form_that_misses_the_prefix_is_wrong() -> None:
    """The Anthropic form of the same request must reuse as much; where there is no such API nothing is said."""
    one = Trial(answer(100.0, prompt=6800), (answer(0.8, 6000),), answer(0.9, 6000), PREFIX, None, messages=5999)

    assert failed(Findings(4000, NAME, [one])) == [
        "4000 tokens and tools: the same request to /v1/messages reuses the whole shared prefix"
    ]
    assert failed(Findings(4000, NAME, [replace(one, messages=None)])) == []
