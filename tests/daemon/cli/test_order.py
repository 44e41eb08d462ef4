from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from stoker.daemon.readiness import Board
from stoker.daemon.steward import Refusal
from stoker.ipc.control_messages import Outcome, RewarmReport, SuccessorStatus
from stoker.ipc.messages import WarmPrefix
from tests.fakes.command_line import Run, Serve
from tests.fakes.fake_steward import FAILED, LOADING, READY, FakeSteward, changed


def test_rewarm_warms_what_is_configured(stoker: Run, serve: Serve) -> None:
    """Without prompts the daemon takes its own; the answer says what is warm now."""
    steward = serve(FakeSteward()).steward
    outcome = stoker("rewarm")

    assert steward.asked == [()]
    assert (outcome.code, outcome.out) == (0, "succeeded in 0.5 s: system 1,832 tokens (prefilled, 1.90 s)\n")


def test_rewarm_sends_the_text_of_prompt_files(stoker: Run, serve: Serve, tmp_path: Path) -> None:
    """Each file becomes a prefix with the file's name; files of the same name keep their paths."""
    files = [tmp_path / "agent.md", tmp_path / "a" / "role.md", tmp_path / "b" / "role.md"]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"You are {file}.", encoding="utf-8")
    steward = serve(FakeSteward()).steward
    outcome = stoker("rewarm", "--json", *(part for file in files for part in ("--prompt", file)))
    names = ["agent", str(files[1]), str(files[2])]

    assert steward.asked == [
        tuple(WarmPrefix(name=name, system=f"You are {file}.") for name, file in zip(names, files, strict=True))
    ]
    assert json.loads(outcome.out)["outcome"] == "succeeded"


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b"\xff", "not UTF-8"), (b" \n", "is empty"), (b"x" * (2 << 20), "limit")],
)
def test_rewarm_refuses_a_bad_prompt_file(
    stoker: Run, serve: Serve, tmp_path: Path, content: bytes | None, words: str
) -> None:
    """What can't be a prompt is refused in one line before the daemon is asked."""
    file = tmp_path / "prompt.md"
    if content is not None:
        file.write_bytes(content)
    steward = serve(FakeSteward()).steward
    outcome = stoker("rewarm", "--prompt", file)

    assert (outcome.code, outcome.out, steward.asked) == (2, "", [])
    assert words in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(("result", "code"), [("abandoned", 1), ("disabled", 1), ("failed", 2)])
def test_rewarm_that_did_not_succeed_says_why(stoker: Run, serve: Serve, result: Outcome, code: int) -> None:
    """An abandoned warmup is a "no", a failed one a failure; the reason is shown."""
    report = RewarmReport(outcome=result, seconds=61.0, reason="timeout", prefixes=())
    serve(FakeSteward(rewarm_report=report))
    outcome = stoker("rewarm")

    assert outcome.code == code
    assert outcome.out == f"{result} (timeout) in 1 min 1 s: no prefixes\n"


def test_a_refused_order_is_told_with_its_remedy(stoker: Run, serve: Serve) -> None:
    """The daemon's "no" is one line with what to do, exit code 2."""
    serve(FakeSteward(fault=Refusal("no worker is ready", "wait: stoker ready --wait")))
    outcome = stoker("rewarm")

    assert (outcome.code, outcome.err) == (2, "stoker: no worker is ready; wait: stoker ready --wait\n")


@pytest.mark.parametrize("cold", [False, True])
def test_restart_waits_for_the_next_generation(stoker: Run, serve: Serve, cold: bool) -> None:
    """The ready of the old worker is not taken for that of the new one; the answer says how warm it is."""
    after = (changed(READY, since=1.0), changed(LOADING, generation=2), changed(READY, generation=2))
    steward = serve(FakeSteward(after_restart=after)).steward
    outcome = stoker("restart", *(["--cold"] if cold else []))

    assert steward.asked == [("restart", cold)]
    assert outcome.code == 0
    assert "ready (generation 2), warm: system 1,832 tokens" in outcome.out


def test_restart_of_a_failed_daemon_is_not_answered_by_the_old_failure(stoker: Run, serve: Serve) -> None:
    """Only what happens after the order counts."""
    serve(FakeSteward(Board(FAILED)))

    assert stoker("restart").code == 0


def test_restart_that_fails_is_exit_code_2(stoker: Run, serve: Serve) -> None:
    """A worker that can't be started again is reported with the reason."""
    serve(FakeSteward(after_restart=(changed(FAILED, generation=2),)))
    outcome = stoker("restart", "--json")

    assert outcome.code == 2
    assert json.loads(outcome.out)["reason"] == "the model is unusable"


def test_restart_that_takes_too_long_is_exit_code_1(stoker: Run, serve: Serve) -> None:
    """After the timeout the command says where things are, and that they go on."""
    serve(FakeSteward(after_restart=(changed(LOADING, generation=2),)))
    outcome = stoker("restart", "--timeout", 0.1)

    assert outcome.code == 1
    assert "loading the model (generation 2); it goes on" in outcome.err


def test_restart_whose_new_worker_fails_is_exit_code_1(stoker: Run, serve: Serve) -> None:
    """Where the old worker serves on because the new one did not become ready, that is told, with the reason."""
    heir = SuccessorStatus(generation=2, phase="loading", since=1.0)
    serve(FakeSteward(after_restart=(changed(READY, successor=heir), changed(READY, replacement_failed="no model"))))
    outcome = stoker("restart")

    assert outcome.code == 1
    assert "the new worker did not become ready, the old one serves on: no model" in outcome.err


def test_restart_without_waiting_returns_at_once(stoker: Run, serve: Serve) -> None:
    """`--no-wait` gives the order, and nothing more."""
    steward = serve(FakeSteward(after_restart=())).steward
    outcome = stoker("restart", "--no-wait")

    assert (outcome.code, steward.asked) == (0, [("restart", False)])


def test_stop_returns_when_the_process_is_gone(stoker: Run, daemon_process: subprocess.Popen[str]) -> None:
    """When `stop` says stopped, the daemon's process has ended: another one may be started."""
    outcome = stoker("stop")

    assert (outcome.code, outcome.out) == (0, "stopped\n")
    assert daemon_process.wait(0) == 0


def test_stop_does_not_wait_for_ever(stoker: Run, serve: Serve) -> None:
    """A daemon that does not end is reported after the timeout, with its pid."""
    serve(FakeSteward())
    outcome = stoker("stop", "--timeout", 0.1)

    assert outcome.code == 1
    assert "still stopping" in outcome.err
