"""The serving benchmark's options."""

from __future__ import annotations

import pytest

from bench.command import command_line
from bench.serving import SECTIONS, parser, plan_of


def test_default_is_what_was_promised() -> None:
    """Without options all parts are measured, at 1, 4, 8 and 16 streams, with 100 prompts and the peer."""
    plan = plan_of(parser().parse_args([]))

    assert plan.only == SECTIONS
    assert plan.parallel.streams == (1, 4, 8, 16)
    assert (plan.intrusion.prompt_tokens, plan.equality.prompts, plan.against_peer) == (2000, 100, True)


def test_options_are_taken() -> None:
    """Numbers of streams, repeats and prompts can be chosen, also for a quick run."""
    plan = plan_of(parser().parse_args(["--quick", "--streams", "2,3", "--prompts", "7", "--repeats", "2"]))

    assert (plan.parallel.streams, plan.equality.prompts, plan.intrusion.repeats) == ((2, 3), 7, 2)


@pytest.mark.parametrize("streams", ["", "0", "1,", "65", "one", "1;2"])
def test_bad_numbers_of_streams_are_refused(streams: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers that can't be measured are wrong usage, and the message says what can."""
    with pytest.raises(SystemExit) as error:
        parser().parse_args([f"--streams={streams}"])

    assert error.value.code == 2
    assert "from 1 to 64" in capsys.readouterr().err


def test_recorded_command_is_its_own() -> None:
    """The command in a report is that of this benchmark."""
    assert command_line("serving", ["--quick", "--json", "/a"]) == "python bench/serving.py --quick"
