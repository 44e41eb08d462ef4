"""Processes and folders of a benchmark: none outlives it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from stoker.bench import children
from stoker.bench.children import (
    BenchmarkError,
    child,
    clean_environment,
    deadline,
    demand_alive,
    own_folder,
    unwinding,
)

STUBBORN = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("number", children.ENDING)
def test_the_first_signal_unwinds_and_the_next_ones_are_ignored(number: signal.Signals) -> None:
    """Whatever tells us to end is an interrupt once, cleaning up is never interrupted, and then all is as before."""
    before = [signal.getsignal(each) for each in children.ENDING]
    cleaned = False
    with pytest.raises(KeyboardInterrupt), unwinding():  # noqa: PT012 - what unwinds is the subject
        try:
            signal.raise_signal(number)
        finally:
            for each in children.ENDING:
                signal.raise_signal(each)
            cleaned = True

    assert cleaned
    assert [signal.getsignal(each) for each in children.ENDING] == before


def test_a_signal_that_is_ignored_stays_so() -> None:
    """Under nohup a terminal that is closed ends nothing."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with unwinding():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_folder_is_private_short_and_gone() -> None:
    """Sockets have room in its path, nobody else may look into it, and nothing of it stays."""
    with own_folder() as home:
        (home / "file").touch()
        assert home.stat().st_mode & 0o077 == 0
        assert len(str(home / "runtime" / "control.sock")) < 60

    assert not home.exists()


def test_nobody_s_configuration_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that would change what is measured are left out; the rest of the environment is passed on."""
    monkeypatch.setenv("STOKER_MAX_BATCH", "1")
    monkeypatch.setenv("KV_CACHE_WARMUP", "0")
    monkeypatch.setenv("WARMUP_SYSTEM_FILE", "x")
    monkeypatch.setenv("LANG", "C")
    environ = clean_environment()

    assert not any(name.startswith(("STOKER_", "KV_CACHE", "WARMUP_")) for name in environ)
    assert (environ["LANG"], environ["HF_HUB_OFFLINE"]) == ("C", "1")


def test_a_child_ends_with_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not hear TERM is killed after a grace, whatever happened in the block."""
    monkeypatch.setattr(children, "GRACE", 0.1)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012, SIM117 - the child is to be inside
        with child([sys.executable, "-c", STUBBORN], clean_environment(), tmp_path / "log") as process:
            for _ in deadline(30, "a first word"):
                if "deaf" in (tmp_path / "log").read_text(encoding="utf-8"):
                    break
            raise ZeroDivisionError

    assert process.returncode == -signal.SIGKILL
    assert not psutil.pid_exists(process.pid)


def test_a_child_that_died_is_told_with_its_last_words(tmp_path: Path) -> None:
    """What it wrote says why; one that lives is no error."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", "raise SystemExit('no model there')"]
    with child(command, clean_environment(), log) as process:
        process.wait(30)
        with pytest.raises(BenchmarkError, match="no model there"):
            demand_alive(process, log)
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.DEVNULL) as living:
        demand_alive(living, log)
        living.kill()


def test_what_does_not_happen_is_told() -> None:
    """After its time a wait is an error that says for what."""
    with pytest.raises(BenchmarkError, match=r"a miracle did not happen within 0\.01 s"):
        for _ in deadline(0.01, "a miracle"):
            pass


def test_what_fails_because_it_was_struck_is_an_interrupt_too() -> None:
    """An event loop that is told to end in the middle of its own work may fail otherwise; that is no other end."""
    with pytest.raises(KeyboardInterrupt), unwinding():  # noqa: PT012 - as above
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeError("the loop is broken") from None
