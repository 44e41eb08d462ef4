from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from stoker.daemon.cli.logs import BLOCK, Tail, readable
from tests.fakes.command_line import Run, Serve, stoker_process
from tests.fakes.fake_steward import FakeSteward


@pytest.fixture
def log_dir() -> Path:
    path = Path(os.environ["STOKER_LOG_DIR"])
    path.mkdir()
    return path


def test_the_end_of_the_log_is_shown_without_a_daemon(stoker: Run, log_dir: Path) -> None:
    """The last lines are printed as they are where the output is no terminal."""
    (log_dir / "daemon.log").write_text("".join(f'{{"n": {n}}}\n' for n in range(100)))
    outcome = stoker("logs", "-n", 2)

    assert (outcome.code, outcome.out) == (0, '{"n": 98}\n{"n": 99}\n')


def test_the_workers_output_is_another_log(stoker: Run, log_dir: Path) -> None:
    """`--worker` shows what the worker wrote."""
    (log_dir / "worker.log").write_text("loading\n")

    assert stoker("logs", "--worker").out == "loading\n"


def test_a_running_daemon_knows_best_where_its_log_is(stoker: Run, serve: Serve, tmp_path: Path) -> None:
    """The path comes from the daemon, whose configuration may be another one than ours."""
    (tmp_path / "elsewhere.log").write_text("here\n")
    serve(FakeSteward(logs={"daemon": str(tmp_path / "elsewhere.log")}))

    assert stoker("logs").out == "here\n"


def test_no_log_yet_is_a_no(stoker: Run) -> None:
    """Without a file the answer is one line that names it, exit code 1."""
    outcome = stoker("logs")

    assert outcome.code == 1
    assert "daemon.log" in outcome.err


def test_following_shows_what_is_added(log_dir: Path) -> None:
    """`-f` goes on with new lines, also after the log was rotated, until it is interrupted."""
    log = log_dir / "daemon.log"
    log.write_text("first\n")
    with ExitStack() as stack:
        process = stack.enter_context(stoker_process("logs", "-f"))
        assert process.stdout is not None
        seen = [process.stdout.readline()]
        with log.open("a") as stream:
            stream.write("second\n")
        seen.append(process.stdout.readline())
        log.rename(log_dir / "daemon.log.1")
        log.write_text("third\n")
        seen.append(process.stdout.readline())

    assert seen == ["first\n", "second\n", "third\n"]


@pytest.mark.parametrize("count", [0, 1, 3, 10_000])
def test_the_last_lines_are_found_in_a_large_file(tmp_path: Path, count: int) -> None:
    """Lines that lie across the blocks that are read come whole."""
    lines = [f"{number} " + "é" * (number % 400) for number in range(2000)]
    path = tmp_path / "log"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    assert path.stat().st_size > 3 * BLOCK
    with closing(Tail(path)) as tail:
        assert tail.last(count) == (lines[-count:] if count else [])


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    """A line that is being written is shown once, when it is whole."""
    path = tmp_path / "log"
    path.write_text("one\ntw")
    with closing(Tail(path)) as tail, path.open("a") as stream:
        first = tail.last(10)
        stream.write("o\n")
        stream.flush()

        assert (first, tail.new(), tail.new()) == (["one"], ["two"], [])


def _truncate(path: Path) -> None:
    path.write_text("new\n")


def _replace(path: Path) -> None:
    path.unlink()
    path.write_text("new\n")


@pytest.mark.parametrize("change", [_truncate, _replace])
def test_a_log_that_starts_anew_is_followed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """A truncated log and a replaced one are read from their beginning."""
    path = tmp_path / "log"
    path.write_text("a long old line\n")
    with closing(Tail(path)) as tail:
        tail.last(1)
        change(path)

        assert tail.new() == ["new"]


def test_a_log_may_appear_later(tmp_path: Path) -> None:
    """Following may begin before the daemon has written anything."""
    with closing(Tail(tmp_path / "log")) as tail:
        before = tail.last(5) + tail.new()
        (tmp_path / "log").write_text("hello\n")

        assert (before, tail.new()) == ([], ["hello"])


def test_a_structured_line_is_readable_on_a_terminal() -> None:
    """Time, severity and event come first, then the rest; what is not structured is left alone."""
    event = {
        "timestamp": "2030-01-02T03:04:05.678Z",
        "level": "info",
        "event": "phase",
        "logger": "x",
        "phase": "ready",
    }

    assert readable(json.dumps(event)) == "2030-01-02T03:04:05  info    phase  phase=ready"
    assert readable("half a li") == "half a li"
    assert readable("[1]") == "[1]"
