"""The benchmarks' options."""

from __future__ import annotations

import pytest

from bench.command import command_line, parser, plan_of
from bench.runs import SECTIONS


def test_default_measures_everything() -> None:
    """Without options both sizes, the peer and all parts are measured, and workers may grow healthy."""
    plan = plan_of(parser("warmth").parse_args([]))

    assert plan.only == SECTIONS
    assert plan.trials.sizes == (500, 2000)
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
