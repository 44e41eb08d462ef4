"""What must hold of trials."""

from __future__ import annotations

from dataclasses import replace

from stoker.bench.findings import Findings, worst
from stoker.bench.trials import Trial
from stoker.ipc.control_messages import PrefixStatus
from tests.fakes.bench_trials import COMEBACK, GOOD, answer, prefix

REUSED = "2000 tokens: every request then reuses the whole shared prefix, and no more"
RESTORED = "2000 tokens: after kill -9 the learned prefix is restored from disk, without anyone asking"


def failed(*trials: Trial) -> list[str]:
    findings = Findings(2000, trials)
    return [check.promise for check in (*findings.warm_checks(), *findings.restored_checks()) if not check.ok]


def back(report: PrefixStatus | None) -> Trial:
    """A trial after which the next worker's warmup reports this."""
    return replace(GOOD, comeback=replace(COMEBACK, report=report))


def test_a_good_trial_passes() -> None:
    """Cold was cold, the whole prefix was found each time, and the text is the same: nothing is wrong."""
    assert failed(GOOD, GOOD) == []


def test_a_cold_request_that_found_its_prompt_is_wrong() -> None:
    """What was cached is no cold request."""
    assert failed(replace(GOOD, cold=answer(0.3, 2000))) == ["2000 tokens: cold requests were cold"]


def test_half_a_rewarm_is_wrong() -> None:
    """A rewarm that left tokens cold fails the run."""
    assert failed(replace(GOOD, prefix=prefix(warm=1999))) == ["2000 tokens: rewarm makes the whole prefix warm"]


def test_a_warm_request_that_reused_another_number_of_tokens_is_wrong() -> None:
    """A token less or more than the whole prefix fails the run, in any of the trials."""
    promise = ["2000 tokens: every warm request reuses the whole shared prefix, and no more"]

    assert failed(GOOD, replace(GOOD, others=(answer(0.25, 1999),))) == promise
    assert failed(replace(GOOD, again=answer(0.25, 2001))) == promise


def test_another_text_is_wrong() -> None:
    """A warm or restored answer that isn't the cold one's text fails the run."""
    other = replace(COMEBACK, again=answer(0.28, 2000, "Lyon"))

    assert failed(replace(GOOD, again=answer(0.28, 2000, "Lyon"))) == ["2000 tokens: warm text is the cold text"]
    assert failed(GOOD, replace(GOOD, comeback=other)) == ["2000 tokens: restored text is the cold text"]


def test_a_prefix_that_was_not_restored_as_a_whole_is_wrong() -> None:
    """One successor that computed it, read a part, or did not warm it at all fails the run."""
    assert failed(GOOD, back(prefix("learned-1a2b3c4d"))) == [RESTORED]
    assert failed(back(prefix("learned-1a2b3c4d", "restored", warm=1999))) == [RESTORED]
    assert failed(back(None)) == [RESTORED]


def test_a_restored_request_that_reused_a_token_less_is_wrong() -> None:
    """The first request of the new worker counts, and so does the repeated one."""
    assert failed(replace(GOOD, comeback=replace(COMEBACK, first=answer(0.35, 1999)))) == [REUSED]
    assert failed(replace(GOOD, comeback=replace(COMEBACK, again=answer(0.28, 1999)))) == [REUSED]


def test_only_the_first_request_after_the_kill_is_timed() -> None:
    """The repeated one is there for its text: it finds a worker that has answered before."""
    assert Findings(2000, [GOOD, GOOD]).restored.values == (0.35, 0.35)


def test_the_worst_is_shown() -> None:
    """Of many requests the one that missed most."""
    assert worst([(2000, 2000), (1990, 2000), (3000, 3000)]) == "1990 of 2000"
