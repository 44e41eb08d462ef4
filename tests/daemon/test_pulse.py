"""What a worker owes, and when its silence is too long: data and arithmetic."""

from __future__ import annotations

import pytest

from stoker.daemon.pulse import Budgets, Due, Kind, Pulse
from stoker.ipc.messages import Delta, Finished, Generate, Statistics, TextPrompt, TokenPrompt, Usage, Warm, Warmed

BUDGETS = Budgets(first_token=100.0, next_token=10.0, probe_interval=1000.0, bad_answers=3)
ASK = Generate(prompt=TextPrompt(text="once upon a time"))
PROBE = Generate(prompt=TokenPrompt(tokens=(0,)), max_tokens=1, probe=True)


def finished(tokens: int, reason: str = "stop") -> Finished:
    usage = Usage(prompt_tokens=4, completion_tokens=tokens, cached_tokens=0)
    return Finished(reason=reason, usage=usage)  # type: ignore[arg-type]


def due(pulse: Pulse) -> Due:
    due = pulse.due(BUDGETS)
    assert due is not None
    return due


def test_idle_worker_is_probed() -> None:
    """Who owes nothing is not silent; after the interval since its last proof of life it is asked for one."""
    assert due(Pulse(proved=50.0)) == Due(1050.0, Kind.PROBE)


def test_probing_can_be_switched_off() -> None:
    """Without an interval, an idle worker is left alone for ever."""
    assert Pulse().due(Budgets(probe_interval=0)) is None


def test_probe_that_was_refused_is_not_repeated_at_once() -> None:
    """The interval counts from the last probe, too."""
    pulse = Pulse(proved=0.0, probed=1000.0)

    assert due(pulse).at == 2000.0


def test_silence_counts_from_the_question() -> None:
    """A worker that was idle for long has its whole budget for the first token."""
    pulse = Pulse(proved=0.0)
    pulse.asked(1, ASK, 500.0)

    assert (due(pulse).at, due(pulse).kind) == (600.0, Kind.SILENT)
    assert due(pulse).why == "silent: no token and no progress for 100 s with work to do"


def test_progress_begins_the_budget_anew() -> None:
    """A prefill of any length is left alone as long as it reports."""
    pulse = Pulse()
    pulse.asked(1, ASK, 0.0)
    for now in range(0, 10_000, 99):
        assert due(pulse).at > now
        pulse.heard(float(now))


def test_next_token_has_its_own_budget() -> None:
    """Once all open answers have begun, the shorter budget of the next token counts."""
    pulse = Pulse()
    pulse.asked(1, ASK, 0.0)
    pulse.stepped((Delta(target=1, tokens=(7,)),), 20.0)

    assert due(pulse).at == 30.0
    assert due(pulse).why == "silent: no token for 10 s in the middle of an answer"


def test_decoding_proves_life_for_a_waiting_prefill() -> None:
    """A prompt that waits behind a full batch is no silence, however long it waits."""
    pulse = Pulse()
    pulse.asked(1, ASK, 0.0)
    pulse.asked(2, ASK, 0.0)
    for now in range(1, 5000, 9):
        pulse.stepped((Delta(target=1, tokens=(7,)),), float(now))
        assert due(pulse).at == now + 100.0


def test_warmup_owes_progress() -> None:
    """A warmup, of a rewarm or one that was abandoned, is work like a prompt's."""
    pulse = Pulse()
    pulse.asked(1, Warm(prefixes=()), 5.0)
    pulse.heard(50.0)
    assert due(pulse).at == 150.0

    pulse.answered(1, Warmed(outcome="succeeded", prefixes=(), seconds=1.0), 60.0)
    pulse.closed(1)
    assert due(pulse) == Due(1060.0, Kind.PROBE)


def test_question_that_needs_no_computing_proves_nothing() -> None:
    """Asking for figures neither postpones the next probe, nor does it prove life to whoever waits for tokens."""
    pulse = Pulse(proved=0.0)
    for now in range(0, 900, 10):
        pulse.asked(now, Statistics(), float(now))
        pulse.closed(now)
    assert due(pulse).at == 1000.0

    pulse.asked("a", ASK, 900.0)
    pulse.asked("b", Statistics(), 950.0)
    pulse.closed("b")
    assert due(pulse).at == 1000.0


def test_probe_in_flight_is_named() -> None:
    """Where it was the probe that showed it, the cause says so."""
    pulse = Pulse()
    pulse.asked(1, PROBE, 1000.0)

    assert due(pulse).why == "silent: no token and no progress for 100 s when it was probed"


def test_bad_answers_in_a_row_are_poison() -> None:
    """Answers without a token, and failures, count together; the limit's last one makes the verdict."""
    pulse = Pulse()
    for request, bad in enumerate(["empty", "failed", "empty"]):
        assert pulse.poisoned(BUDGETS) is None
        pulse.asked(request, ASK, 0.0)
        pulse.failed() if bad == "failed" else pulse.answered(request, finished(0), 1.0)
        pulse.closed(request)

    assert pulse.poisoned(BUDGETS) == "poisoned: 3 answers in a row were empty or failed"


@pytest.mark.parametrize(
    ("body", "answer", "bad"),
    [
        pytest.param(ASK, finished(1), 0, id="a good one ends the row"),
        pytest.param(ASK, finished(0, "cancelled"), 2, id="a cancelled one says nothing"),
        pytest.param(PROBE, finished(0), 2, id="a probe may end at once"),
        pytest.param(PROBE, finished(1), 2, id="a probe's token is no answer"),
    ],
)
def test_row_of_bad_answers(body: Generate, answer: Finished, bad: int) -> None:
    """Only an answer to a user, given to the end, says whether answers are good."""
    pulse = Pulse(bad=2)
    pulse.asked(1, body, 0.0)
    pulse.answered(1, answer, 1.0)

    assert pulse.bad == bad


def test_late_answer_proves_life() -> None:
    """The answer to a request that was given up shows that the worker computes, and says nothing about answers."""
    pulse = Pulse()
    pulse.asked(1, ASK, 0.0)
    pulse.closed(1)
    pulse.answered(1, finished(0), 40.0)

    assert (pulse.proved, pulse.bad) == (40.0, 0)
