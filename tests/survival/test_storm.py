"""Chaos, bounded: clients ask while workers are struck, and each gets what a calm day would have given it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.chaos import FAKE, FIGURES, STORMS, kinds, main, parser, plan_of, settings_of
from bench.chaos_requests import Reply, drawn
from bench.leaks import Held, checks
from bench.storms import Plan, storm
from stoker.bench.children import own_folder
from stoker.bench.report import Section

FULL, QUICK = 0, 1


def broken(section: Section) -> list[str]:
    """Promises that did not hold; figures that a busy machine may miss are none."""
    return [f"{check.promise}: {check.found}" for check in section.checks if not check.ok and not check.target]


def raged(name: str, size: int) -> Section:
    with own_folder() as home:
        return storm(home, settings_of(name, home), STORMS[name][size])


def test_storm_of_kills() -> None:
    """Workers killed, ended and crashed under load: no request fails, no byte differs, nothing leaks."""
    section = raged("fake", QUICK)

    assert broken(section) == []
    assert section.data["generations"] > 3
    assert section.data["resumed"] > 0


@pytest.mark.storm
def test_storm_over_a_real_model() -> None:
    """The same with real workers and a tiny model, greedy and seeded."""
    assert broken(raged("tiny", QUICK)) == []


@pytest.mark.parametrize("name", ["restarts", pytest.param("in-place", marks=pytest.mark.storm)])
def test_restarts_under_load(name: str) -> None:
    """Restarts under load cost no request, beside and in place."""
    section = raged(name, QUICK)

    assert broken(section) == []
    assert section.data["generations"] == 1 + STORMS[name][QUICK].strikes


@pytest.mark.parametrize("name", ["comeback", "silence", pytest.param("patience", marks=pytest.mark.storm)])
def test_figures_can_be_had(name: str, tmp_path: Path) -> None:
    """Coming back, silence and patience are measured, and what doesn't depend on the machine holds."""
    with own_folder() as home:
        assert broken(FIGURES[name](home, bool(QUICK))) == []


def test_different_bytes_are_found() -> None:
    """A worker whose answers depend on its generation is found out: the comparison compares."""
    scenario = '{"1": {}, "default": {"generate": {"tokens": 3}}}'
    with own_folder() as home:
        section = storm(home, {**FAKE, "FAKE_WORKER": scenario}, Plan("liar", 300, 2, {"kill": 1}, early=0.0))

    assert section.data["different"] > 0
    assert any("calm day" in promise for promise in broken(section))


def test_leaks_are_found() -> None:
    """More descriptors, threads, processes or memory than before is said."""
    before = Held(descriptors=15, threads=2, children=1, zombies=0, memory=60 << 20)
    after = Held(descriptors=16, threads=9, children=2, zombies=1, memory=160 << 20)

    assert [check.ok for check in checks(before, before)] == [True] * 4
    assert [check.ok for check in checks(before, after)] == [False] * 4


def test_storms_are_reproducible() -> None:
    """The same seed draws the same requests, another one others."""
    assert list(drawn(3, 50, (16, 64))) == list(drawn(3, 50, (16, 64)))
    assert list(drawn(3, 50, (16, 64))) != list(drawn(4, 50, (16, 64)))


def test_silence_is_measured_between_pieces() -> None:
    """A reply knows its longest pause, and differs from one that ended in another way."""
    reply, other = Reply(), Reply()
    reply.add({"content": "a"})
    other.add({"content": "a"})
    assert reply.same(other)

    other.end("length", {"prompt_tokens": 3, "completion_tokens": 1})
    assert not reply.same(other)


def test_options_change_the_storm() -> None:
    """Amounts, seed and faults of a storm can be chosen; what is no fault is wrong usage."""
    options = parser().parse_args(["--only", "fake", "--strikes", "7", "--seed", "9", "--kinds", "kill=1,stop=2"])
    plan = plan_of("fake", options)

    assert (plan.strikes, plan.seed, dict(plan.kinds)) == (7, 9, {"kill": 1, "stop": 2})
    with pytest.raises(SystemExit):
        parser().parse_args(["--kinds", "frown=1"])
    assert kinds("restart=1") == {"restart": 1}


@pytest.mark.storm
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", STORMS)
def test_whole_storm(name: str) -> None:
    """A thousand kills and ten thousand requests; fifty kills of real workers; a hundred restarts both ways."""
    assert broken(raged(name, FULL)) == []


@pytest.mark.storm
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FIGURES)
def test_whole_figures(name: str) -> None:
    """Coming back, silence and patience, with all their repeats."""
    with own_folder() as home:
        assert broken(FIGURES[name](home, bool(FULL))) == []


def test_command_writes_its_results(tmp_path: Path) -> None:
    """The command measures, shows, and writes what it found as JSON and as Markdown."""
    written, table = tmp_path / "a.json", tmp_path / "a.md"
    arguments = ["--quick", "--only", "fake", "--requests", "6", "--strikes", "1", "--clients", "2"]

    assert main([*arguments, "--json", str(written), "--markdown", str(table)]) == 0
    assert '"answered": 6' in written.read_text(encoding="utf-8")
    assert "Storm: fake" in table.read_text(encoding="utf-8")
