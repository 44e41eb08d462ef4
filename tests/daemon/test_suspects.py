"""Who is blamed for a worker's death, decided without processes."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.daemon.causes import describe_exit
from stoker.daemon.suspects import PROOF, Case, Ledger, cause_of, is_from_outside
from stoker.ipc.control_messages import Departure

CRASH = "crashed with SIGSEGV: a fault in native code, or out of memory"


def running(ledger: Ledger, *cases: Case, generation: int = 1) -> None:
    """A worker has these requests."""
    for case in cases:
        ledger.begin(case, generation)
        case.sent = True


def tell(ledger: Ledger, case: Case, tokens: int) -> bool:
    case.position += tokens
    return ledger.advance(case)


def test_crash_suspects_all_that_ran() -> None:
    """After a first crash every request that ran is a suspect, and none is convicted."""
    ledger, cases = Ledger(), [Case() for _ in range(3)]
    running(ledger, *cases)
    ledger.died(1, CRASH, nobody=False)

    assert [case.suspect for case in cases] == [True] * 3
    assert [case.convicted for case in cases] == [None] * 3
    assert ledger.generations == set()


def test_suspect_runs_without_company() -> None:
    """While a suspect is tried again nobody else begins, until it got far enough beyond the place of the crash."""
    ledger, suspect = Ledger(), Case(position=5)
    running(ledger, suspect)
    ledger.died(1, CRASH, nobody=False)
    running(ledger, suspect, generation=2)
    assert ledger.on_probation

    assert not tell(ledger, suspect, PROOF - 1)
    assert tell(ledger, suspect, 1)
    running(ledger, Case(), generation=2)
    assert not suspect.suspect


def test_second_crash_convicts_the_one_on_probation() -> None:
    """The request on probation is convicted, and the others that ran are acquitted, whatever their number."""
    ledger, guilty, innocent = Ledger(), Case(), Case()
    running(ledger, guilty, innocent)
    ledger.died(1, CRASH, nobody=False)
    running(ledger, innocent, generation=2)
    tell(ledger, innocent, PROOF)
    running(ledger, guilty, generation=2)
    ledger.died(2, CRASH, nobody=False)

    assert (guilty.convicted, innocent.convicted) == (CRASH, None)
    assert not innocent.suspect
    assert not ledger.on_probation


def test_answer_acquits() -> None:
    """A short answer that is complete is proof enough, and so is a client that leaves: others may begin."""
    ledger, suspect = Ledger(), Case()
    running(ledger, suspect)
    ledger.died(1, CRASH, nobody=False)
    running(ledger, suspect, generation=2)

    assert ledger.end(suspect)
    assert not ledger.on_probation


def test_kill_from_outside_blames_nobody() -> None:
    """A death that somebody sent makes no suspects, and takes a suspect's probation away without a conviction."""
    ledger, one, other = Ledger(), Case(), Case()
    running(ledger, one, other)
    ledger.died(1, "killed by SIGKILL, not by Stoker", nobody=True)
    assert (one.suspect, one.losses) == (False, 1)

    running(ledger, one, generation=2)
    ledger.died(2, CRASH, nobody=False)
    running(ledger, one, generation=3)
    ledger.died(3, "killed by SIGKILL, not by Stoker", nobody=True)
    assert (one.suspect, one.convicted, one.losses) == (True, None, 2)
    assert not ledger.on_probation


def test_losses_count_only_without_progress() -> None:
    """Getting further makes the losses before it forgotten, so that a long answer survives any number of kills."""
    ledger, case = Ledger(), Case()
    for generation in range(1, 50):
        running(ledger, case, generation=generation)
        tell(ledger, case, PROOF)
        ledger.died(generation, "killed by SIGKILL", nobody=True)

    assert case.losses == 1


def test_request_that_never_left_is_no_suspect() -> None:
    """A request that the worker can't have seen yet when it died is neither suspect nor counted as lost."""
    ledger, unsent = Ledger(), Case()
    ledger.begin(unsent, 1)
    ledger.died(1, CRASH, nobody=False)

    assert (unsent.suspect, unsent.losses, unsent.generation) == (False, 0, 0)


def test_other_generation_is_left_alone() -> None:
    """The death of one generation says nothing about requests on another."""
    ledger, elsewhere = Ledger(), Case()
    running(ledger, elsewhere, generation=2)
    ledger.died(1, CRASH, nobody=False)

    assert not elsewhere.suspect
    assert ledger.generations == {2}


def test_engine_fault_twice_convicts() -> None:
    """A fault of the engine counts like a crash: suspects are tried one at a time, and the second one convicts."""
    ledger, guilty, neighbour = Ledger(), Case(), Case()
    running(ledger, guilty, neighbour)
    ledger.fault(guilty, "the batch failed")
    ledger.fault(neighbour, "the batch failed")
    assert guilty.suspect
    assert neighbour.suspect

    running(ledger, guilty)
    ledger.fault(guilty, "the batch failed")
    assert guilty.convicted == "the batch failed"
    assert not ledger.on_probation


def test_neighbour_of_a_probation_is_acquitted() -> None:
    """What fails together with a request on probation is not to blame."""
    ledger, guilty, neighbour = Ledger(), Case(suspect=True), Case()
    running(ledger, neighbour, guilty)
    ledger.fault(neighbour, "the batch failed")

    assert not neighbour.suspect


@given(st.integers(2, 12), st.data())
def test_one_poison_costs_two_workers(requests: int, data: st.DataObject) -> None:
    """Whichever of many requests crashes its worker, exactly it is convicted, and no third worker dies."""
    ledger, cases = Ledger(), [Case() for _ in range(requests)]
    poison = data.draw(st.sampled_from(cases))
    running(ledger, *cases)
    ledger.died(1, CRASH, nobody=False)
    deaths, generation, line = 1, 2, data.draw(st.permutations(cases))
    while line:
        case = line[0]
        assert not ledger.on_probation
        running(ledger, case, generation=generation)
        if case is poison:
            ledger.died(generation, CRASH, nobody=False)
            deaths, generation = deaths + 1, generation + 1
        else:
            tell(ledger, case, PROOF)
            ledger.end(case)
        line = [each for each in line if each.convicted is None and each is not case]

    assert [case for case in cases if case.convicted] == [poison]
    assert deaths == 2


@pytest.mark.parametrize(
    ("code", "by_us", "outside"),
    [
        (-signal.SIGKILL, None, True),
        (-signal.SIGTERM, None, True),
        (-signal.SIGKILL, "SIGKILL", True),
        (0, None, True),
        (-signal.SIGSEGV, None, False),
        (-signal.SIGABRT, None, False),
        (-signal.SIGBUS, None, False),
        (1, None, False),
        (70, None, False),
        (os.EX_CONFIG, None, False),
    ],
)
def test_causes_in_the_words_of_process(code: int, by_us: str | None, outside: bool) -> None:
    """Signals that people send are from outside; faults, exit codes and native crashes are not."""
    assert is_from_outside(describe_exit(code, by_us)) is outside


@pytest.mark.parametrize("for_memory", [True, False, None])
def test_memory_killer_is_not_from_outside(for_memory: bool | None) -> None:
    """Where the system tells that it killed for want of memory, a request may be to blame; elsewhere nobody is."""
    assert is_from_outside(describe_exit(-signal.SIGKILL, None, for_memory=for_memory)) == (for_memory is not True)


@pytest.mark.parametrize("doom", ["the worker broke the protocol: garbage", "computed nothing for 60 s"])
def test_dooms_are_not_from_outside(doom: str) -> None:
    """A worker that the daemon had to kill for what it did may have done it because of a request."""
    assert not is_from_outside(doom)


def gone(generation: int, *, expected: bool = False) -> Departure:
    return Departure(at=0.0, generation=generation, cause=CRASH, expected=expected)


def test_cause_of_a_generation() -> None:
    """A generation's cause is told once it has departed, not before; one that was ended on purpose is nobody's."""
    departures = (gone(3), gone(5), gone(4, expected=True))

    assert cause_of(3, departures) == CRASH
    assert is_from_outside(cause_of(4, departures) or "")
    assert cause_of(2, departures) is None
    assert cause_of(6, departures) is None
