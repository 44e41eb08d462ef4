from __future__ import annotations

import io
import json
import logging
import stat
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
import structlog

from stoker.daemon import observe
from stoker.daemon.observe import WorkerLog, log_transitions, logging_to, worker_log
from stoker.daemon.readiness import Board
from stoker.ipc.control_messages import ProgressStatus, SuccessorStatus
from tests.fakes.fake_steward import FAILED, LOADING, READY, changed


def events(log_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (log_dir / "daemon.log").read_text(encoding="utf-8").splitlines()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_events_are_json_lines_with_time_and_severity(tmp_path: Path) -> None:
    """Each event is one JSON object with its fields, a UTC time, its severity and its logger."""
    with logging_to(tmp_path, "info"):
        structlog.get_logger("stoker.test").info("hello\nthere", tokens=5)
    (event,) = events(tmp_path)

    assert (event["event"], event["tokens"], event["level"], event["logger"]) == (
        "hello\nthere",
        5,
        "info",
        "stoker.test",
    )
    assert event["timestamp"].endswith("Z")


def test_less_severe_events_are_left_out(tmp_path: Path) -> None:
    """Below the level nothing is written."""
    with logging_to(tmp_path, "warning"):
        structlog.get_logger("stoker.test").info("quiet")
        structlog.get_logger("stoker.test").error("loud")

    assert [event["event"] for event in events(tmp_path)] == ["loud"]


def test_libraries_warnings_are_in_the_log_too(tmp_path: Path) -> None:
    """What a library logs through `logging` is an event like ours, with its traceback in one line."""
    with logging_to(tmp_path, "info"):
        logging.getLogger("a.library").warning("slow %s", "callback", exc_info=ValueError("why"))
    (event,) = events(tmp_path)

    assert (event["event"], event["logger"]) == ("slow callback", "a.library")
    assert "ValueError: why" in event["exception"]


@pytest.mark.parametrize("field", ["prompt", "messages", "content", "text", "system"])
def test_prompt_text_is_struck_out(tmp_path: Path, field: str) -> None:
    """A field that may hold what people wrote never reaches the log, whoever logs it."""
    with logging_to(tmp_path, "info", console := io.StringIO()):
        structlog.get_logger("stoker.test").warning("request", **{field: "my secret"})
        logging.getLogger("aiohttp").warning("request", extra={field: "my secret"})

    assert "secret" not in (tmp_path / "daemon.log").read_text(encoding="utf-8")
    assert "secret" not in console.getvalue()


def test_warnings_are_shown_on_the_console(tmp_path: Path) -> None:
    """Warnings go to the console, without colours where it is no terminal; information doesn't; nor transitions."""
    with logging_to(tmp_path, "info", console := io.StringIO()):
        structlog.get_logger("stoker.test").info("fine")
        structlog.get_logger("stoker.test").warning("careful", why="disk")
        structlog.get_logger(observe.TRANSITIONS).error("phase", phase="failed")

    assert "careful" in console.getvalue()
    assert "why=disk" in console.getvalue()
    assert "fine" not in console.getvalue()
    assert "phase" not in console.getvalue()
    assert "\x1b" not in console.getvalue()


def test_logs_are_private(tmp_path: Path) -> None:
    """The directory is made with 0700 and the file with 0600, even where it was there with more."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "daemon.log").touch(mode=0o644)
    for log_dir in (tmp_path / "logs", tmp_path / "new" / "logs"):
        with logging_to(log_dir, "info"):
            structlog.get_logger("stoker.test").info("hello")
        assert mode(log_dir / "daemon.log") == 0o600

    assert mode(tmp_path / "new" / "logs") == 0o700


def test_logs_are_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log never grows over its limit, a bounded number of older ones is kept, and all are private."""
    monkeypatch.setattr(observe, "ROTATE_BYTES", 1000)
    with logging_to(tmp_path, "info"):
        for number in range(200):
            structlog.get_logger("stoker.test").info("event", number=number)
    files = list(tmp_path.glob("daemon.log*"))

    assert len(files) == 1 + observe.BACKUPS
    assert all(file.stat().st_size <= 1000 and mode(file) == 0o600 for file in files)
    assert events(tmp_path)[-1]["number"] == 199


def test_a_log_that_can_not_be_written_goes_to_stderr_until_it_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trouble is told once, no event is lost, nothing raises, and the file is used again when it can be."""
    (tmp_path / "logs").write_text("in the way")
    with logging_to(tmp_path / "logs", "info") as file:
        log = structlog.get_logger("stoker.test")
        log.info("first")
        log.info("second")
        trouble = file.trouble
        (tmp_path / "logs").unlink()
        log.info("third")
        recovered = file.trouble is None
    stderr = capsys.readouterr().err

    assert trouble
    assert recovered
    assert stderr.count("cannot write") == 1
    assert stderr.count('"first"') == stderr.count('"second"') == 1
    assert [event["event"] for event in events(tmp_path / "logs")] == ["third"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_full_disk_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the disk fills up events go to stderr; when there is room again, to the file, each once."""
    good = observe.LogFile._open
    monkeypatch.setattr(observe.LogFile, "_open", lambda _: open("/dev/full", "a", encoding="utf-8"))  # noqa: PTH123, SIM115 - the handler closes it
    with logging_to(tmp_path, "info"):
        log = structlog.get_logger("stoker.test")
        log.info("first")
        monkeypatch.setattr(observe.LogFile, "_open", good)
        log.info("second")
    stderr = capsys.readouterr().err

    assert "No space left" in stderr
    assert stderr.count('"first"') == 1
    assert [event["event"] for event in events(tmp_path)] == ["second"]


def test_logging_is_as_before_afterwards(tmp_path: Path) -> None:
    """After the block neither handlers nor structlog's configuration are left behind."""
    before = list(logging.getLogger().handlers)
    with logging_to(tmp_path, "debug"):
        pass

    assert logging.getLogger().handlers == before
    assert not structlog.is_configured()


def test_worker_output_is_kept_line_by_line(tmp_path: Path) -> None:
    """Each line is in `worker.log` with its time; the file is private."""
    log = worker_log(tmp_path)
    log("loading")
    log("Traceback …")
    log.close()
    lines = (tmp_path / "worker.log").read_text(encoding="utf-8").splitlines()

    assert [line.split(" ", 2)[2] for line in lines] == ["loading", "Traceback …"]
    assert mode(tmp_path / "worker.log") == 0o600


def test_a_flood_is_bounded_and_confessed(tmp_path: Path) -> None:
    """A worker that writes too fast loses lines, not the daemon its disk; the log says how many; later ones count."""
    now = 0.0
    log = WorkerLog(tmp_path / "worker.log", clock=lambda: now)
    line = "x" * 999
    for _ in range(5000):
        log(line)
    written = (tmp_path / "worker.log").stat().st_size
    now = 60.0
    log("calm again")
    log.close()
    text = (tmp_path / "worker.log").read_text(encoding="utf-8")

    assert written < observe.FLOOD_BURST * 1.1
    assert log.dropped == 5000 - observe.FLOOD_BURST // 1000
    assert f"({log.dropped} lines dropped" in text
    assert text.rstrip().endswith("calm again")


def test_a_flood_at_the_end_is_confessed_too(tmp_path: Path) -> None:
    """What was dropped last is told when the log is closed."""
    log = WorkerLog(tmp_path / "worker.log", clock=lambda: 0.0)
    for _ in range(3000):
        log("x" * 999)
    log.close()

    assert "(1000 lines dropped" in (tmp_path / "worker.log").read_text(encoding="utf-8")


@pytest.mark.anyio
async def test_each_transition_is_one_event(tmp_path: Path) -> None:
    """Phases are logged once each with what matters, failures as errors, and progress not at all."""
    board = Board(LOADING)
    with logging_to(tmp_path, "info"):
        async with anyio.create_task_group() as group:
            group.start_soon(log_transitions, board)
            await anyio.wait_all_tasks_blocked()
            for done in range(5):
                progress = ProgressStatus(stage="load", done=done, total=5)
                board.publish(changed(LOADING, progress=progress))
            board.publish(READY)
            board.publish(FAILED)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
    logged = events(tmp_path)

    assert [(event["phase"], event["level"]) for event in logged] == [
        ("loading", "info"),
        ("ready", "info"),
        ("failed", "error"),
    ]
    assert (logged[1]["warmup"], logged[1]["tokens_warm"]) == ("succeeded", 1832)
    assert logged[2]["reason"] == "the model is unusable"


@pytest.mark.anyio
async def test_replacements_are_logged(tmp_path: Path) -> None:
    """Each step of a successor is an event, and so is its failure, once; its progress is none."""
    board = Board(READY)
    heir = SuccessorStatus(generation=4, phase="loading", since=1.0)
    with logging_to(tmp_path, "info"):
        async with anyio.create_task_group() as group:
            group.start_soon(log_transitions, board)
            await anyio.wait_all_tasks_blocked()
            for done in range(3):
                progress = ProgressStatus(stage="load", done=done, total=5)
                board.publish(changed(READY, successor=msgspec.structs.replace(heir, progress=progress)))
            board.publish(changed(READY, replacement_failed="no such model"))
            board.publish(changed(READY, replacement_failed="no such model", warm=False))
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()

    told = [(event["event"], event.get("generation"), event.get("cause")) for event in events(tmp_path)]
    assert [one for one in told if one[0] != "phase"] == [
        ("successor", 4, None),
        ("replacement failed", None, "no such model"),
    ]
