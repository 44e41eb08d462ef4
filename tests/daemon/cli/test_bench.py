"""`stoker bench`: its options, and what it refuses before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.daemon.cli import measure
from tests.fakes.command_line import Run


@pytest.fixture(autouse=True)
def _never(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before: here nothing is measured, nor looked at."""

    def run(*_: object) -> int:
        pytest.fail("it went on")

    monkeypatch.setattr(measure, "run", run)


@pytest.mark.parametrize("tokens", ["", "5", "500;2000", "500,"])
def test_bad_lengths_are_refused(stoker: Run, tokens: str) -> None:
    """Lengths that can't be measured are wrong usage, and the message says what can."""
    outcome = stoker("bench", f"--tokens={tokens}")

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        f"stoker: --tokens {tokens!r}: give tokens from 100 to 100000, with commas between, like 500,2000\n"
    )


@pytest.mark.parametrize("repeats", ["0", "many", "101"])
def test_bad_repeats_are_refused(stoker: Run, repeats: str) -> None:
    """A number of trials is one from 1 to 100."""
    outcome = stoker("bench", f"--repeats={repeats}")

    assert outcome.code == 2
    assert "--repeats" in outcome.err


@pytest.mark.parametrize(
    ("file", "words"),
    [("a.doc", ".svg, .png, .pdf"), ("nowhere/a.png", "name another file"), ("/proc/a.svg", "name another file")],
)
def test_a_picture_that_could_not_be_written_is_refused(
    stoker: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, words: str
) -> None:
    """Before anything is measured: it would be a pity afterwards."""
    monkeypatch.chdir(tmp_path)
    outcome = stoker("bench", "--plot", file)

    assert outcome.code == 2
    assert words in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "nowhere").exists()


def test_a_picture_needs_matplotlib(stoker: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without it, the remedy is what to install."""
    monkeypatch.setattr(measure, "find_spec", lambda _name: None)
    outcome = stoker("bench", "--plot", tmp_path / "a.png")

    assert outcome.code == 2
    assert outcome.err.endswith("-m pip install matplotlib\n")


def test_a_wrong_configuration_is_exit_code_78(stoker: Run, tmp_path: Path) -> None:
    """As everywhere: a model that is none, a file that is not there."""
    assert stoker("bench", "--model", tmp_path).code == 78
    assert stoker("bench", "--config", tmp_path / "none.toml").code == 78
