"""What is concluded from trials."""

from __future__ import annotations

from dataclasses import replace

from bench.agent import NAME
from bench.trials import AgentTrial, Findings, Made, PeerTrial, warmth_section
from stoker.bench.comeback import Comeback
from tests.fakes.bench_trials import GOOD, LEARNED, answer, prefix


def failed(findings: Findings) -> list[str]:
    return [check.promise for check in findings.checks() if not check.ok]


def agent_s(restored: float = 0.9, messages: int | None = 6000) -> AgentTrial:
    """A trial with tools, of 6,000 tokens that are shared."""
    comeback = Comeback(LEARNED, answer(restored, 6000), answer(0.9, 6000), 1.75)
    whole = prefix(tokens=6000)
    return AgentTrial(answer(100.0, prompt=6800), answer(0.9, 6000), (answer(0.8, 6000),), whole, comeback, messages)


def test_good_trial_passes() -> None:
    """A cold request that was cold, a whole prefix found each time and the same text: nothing is wrong."""
    findings = Findings(2000, [GOOD])

    assert failed(findings) == []
    assert findings.row()[-2:] == ("2000 of 2000", "yes")
    assert findings.data()["cold_to_first_warm"]["median"] == 50


def test_partly_cached_request_is_wrong() -> None:
    """One warm request that found a token less than the whole prefix fails the run."""
    short = replace(GOOD, others=(answer(0.25, 1999),))
    findings = Findings(2000, [GOOD, short])

    assert failed(findings) == ["2000 tokens: every warm request reuses the whole shared prefix, and no more"]


def test_different_text_is_wrong() -> None:
    """A warm answer that isn't the cold one's text fails the run."""
    findings = Findings(2000, [GOOD, replace(GOOD, again=answer(0.28, 2000, "Lyon"))])

    assert failed(findings) == ["2000 tokens: warm text is the cold text"]


def test_cold_request_that_was_warm_is_wrong() -> None:
    """A cold request that found its system prompt cached fails the run."""
    findings = Findings(2000, [replace(GOOD, cold=answer(0.3, 2000))])

    assert "2000 tokens: cold requests were cold" in failed(findings)


def test_target_is_judged_at_2000_tokens_only() -> None:
    """Thirty times sooner is asked of 2,000 tokens; at 500 the same figures are only shown."""
    slow, short = replace(GOOD, again=answer(1.0, 2000)), replace(GOOD, cold=answer(14.0, prompt=512))

    assert [check.target for check in Findings(2000, [slow]).checks() if not check.ok] == [True]
    assert not any(check.target for check in Findings(500, [short]).checks())


def test_peer_has_no_rewarm() -> None:
    """The peer's row has its cold and its warm figures, no first warm, and no checks: they are not its promises."""
    peers = {2000: [PeerTrial(answer(20.0), (answer(0.5, 2000),))]}
    section = warmth_section(Made({(2000, "stoker"): [GOOD], (4000, NAME): [agent_s()]}, peers))

    assert [row[0] for row in section.rows] == [
        "stoker, 2000 tokens",
        "mlx_lm.server, 2000 tokens",
        "stoker, with tools, 4000 tokens",
    ]
    assert section.rows[1][3] == section.rows[1][8] == "-"
    assert [one["server"] for one in section.data["results"]] == ["stoker", NAME, "mlx_lm.server"]
    assert not any("mlx_lm" in check.promise for check in section.checks)


def test_an_agent_s_request_is_to_be_a_hundred_times_sooner() -> None:
    """Warm and restored are judged where the prompt is as long as an agent's, tools included."""
    assert failed(Findings(4000, [agent_s()], NAME)) == []
    assert failed(Findings(4000, [agent_s(restored=2.0)], NAME)) == [
        "4000 tokens and tools: restored after kill -9 at least 100x sooner than cold"
    ]


def test_a_request_in_the_other_form_that_misses_the_prefix_is_wrong() -> None:
    """The Anthropic form of the same request must reuse as much; where there is no such API nothing is said."""
    assert failed(Findings(4000, [agent_s(messages=5999)], NAME)) == [
        "4000 tokens and tools: a request to /v1/messages with the same prompt and tools reuses all of both"
    ]
    assert failed(Findings(4000, [agent_s(messages=None)], NAME)) == []
