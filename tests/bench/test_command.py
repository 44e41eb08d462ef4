"""The benchmarks' options."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.command import command_line, parser, plan_of
from bench.runs import SECTIONS


def test_default_measures_everything() -> None:
    """Without options all sizes, an agent's request, the peer and all parts are measured; workers grow healthy."""
    plan = plan_of(parser("warmth").parse_args([]))

    assert plan.only == SECTIONS
    assert plan.trials.sizes == (500, 1000, 2000, 4000)
    assert (plan.trials.agent, plan.trials.tools) == (2, None)
    assert plan.against_peer
    assert plan.starts.healthy


def test_quick_is_small() -> None:
    """Quick means one repeat of everything, unless repeats are asked for."""
    assert plan_of(parser("warmth").parse_args(["--quick", "--no-peer"])).trials.repeats == 1
    assert plan_of(parser("warmth").parse_args(["--quick", "--repeats", "4"])).starts.repeats == 4


@pytest.mark.parametrize("sizes", ["", "5", "500;2000", "500,", "-500"])
def test_bad_sizes_are_refused(sizes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes that can't be measured are wrong usage, and the message says what can."""
    with pytest.raises(SystemExit) as error:
        parser("warmth").parse_args([f"--sizes={sizes}"])

    assert error.value.code == 2
    assert "from 100 to 100000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "make bench"),
        (["--json", "/a/b", "--markdown=/c"], "make bench"),
        (["--quick", "--json", "/a/b", "--repeats", "2"], "make bench ARGS='--quick --repeats 2'"),
    ],
)
def test_recorded_command_measures_the_same(arguments: list[str], line: str) -> None:
    """The command in a report has what matters for the figures, and no paths of whoever ran it."""
    assert command_line("warmth", arguments) == line


@pytest.mark.parametrize("file", ["warmth.svg", "warmth.png"])
def test_a_plot_goes_where_it_is_wanted(file: str) -> None:
    """The picture's file is passed on, and is no part of the command that measures the same again."""
    options = ["--only", "warmth", "--plot", file]

    assert plan_of(parser("warmth").parse_args(options)).plot == Path(file)
    assert command_line("warmth", options) == "make bench ARGS='--only warmth'"


def test_a_plot_of_no_known_format_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is measured: it would be a pity afterwards."""
    with pytest.raises(SystemExit):
        parser("warmth").parse_args(["--plot", "warmth.doc"])

    assert ".svg, .png, .pdf" in capsys.readouterr().err
