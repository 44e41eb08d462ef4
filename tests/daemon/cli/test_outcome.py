from __future__ import annotations

import pytest

from stoker.daemon.cli.outcome import Failure, complain


def test_a_complaint_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the message looks like, it is one line on stderr with the command's name."""
    complain("first\n  second")

    assert capsys.readouterr().err == "stoker: first second\n"


def test_a_failure_carries_its_exit_code() -> None:
    """What can't be done is 2 unless it is a plain "no"."""
    assert (Failure("x").exit_code, Failure("x", 1).exit_code) == (2, 1)
