from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from stoker.daemon.cli import ask
from stoker.daemon.readiness import Board
from stoker.ipc.control import connect
from stoker.ipc.control_messages import ProgressStatus, Readiness
from tests.fakes.command_line import Run, Serve, stoker_process
from tests.fakes.fake_steward import FAILED, LOADING, READY, FakeSteward, background, changed


class Eventful(Board):
    """Publishes what is to come as soon as somebody waits for it."""

    def __init__(self, first: Readiness, then: Readiness) -> None:
        super().__init__(first)
        self._then = then

    async def wait(self, predicate: Callable[[Readiness], bool], timeout: float) -> Readiness:  # noqa: ASYNC109 - as Board
        asyncio.get_running_loop().call_soon(self.publish, self._then)
        return await super().wait(predicate, timeout)


@pytest.mark.parametrize(
    ("readiness", "code", "words"),
    [
        (READY, 0, "ready (generation 1), warm: system 1,832 tokens (prefilled, 1.90 s)"),
        (changed(READY, warm=False, reason="timeout"), 0, "not warm: timeout"),
        (changed(LOADING, progress=ProgressStatus(stage="load", done=3, total=9)), 1, "loading the model, 3 of 9"),
        (changed(LOADING, phase="backoff", retry_after=4.0), 1, "4 s to go"),
        (FAILED, 2, "failed: the model is unusable"),
    ],
)
def test_ready_answers_with_its_exit_code(
    stoker: Run, serve: Serve, readiness: Readiness, code: int, words: str
) -> None:
    """0 ready, 1 not yet, 2 failed; and one line that says why."""
    serve(FakeSteward(Board(readiness)))
    outcome = stoker("ready")

    assert (outcome.code, outcome.err) == (code, "")
    assert words in outcome.out
    assert outcome.out.count("\n") == 1


def test_ready_in_json_is_the_snapshot(stoker: Run, serve: Serve) -> None:
    """`--json` prints what the control socket answered, for programs."""
    serve(FakeSteward())
    answer = json.loads(stoker("ready", "--json").out)

    assert (answer["ready"], answer["warm"], answer["warmup"]["outcome"]) == (True, True, "succeeded")


@pytest.mark.parametrize(("then", "code"), [(READY, 0), (FAILED, 2)])
def test_ready_waits_until_ready_or_failed(stoker: Run, serve: Serve, then: Readiness, code: int) -> None:
    """`--wait` returns at the transition."""
    serve(FakeSteward(Eventful(LOADING, then)))

    assert stoker("ready", "--wait").code == code


def test_ready_does_not_wait_longer_than_told(stoker: Run, serve: Serve) -> None:
    """After `--timeout` the answer is "not yet", exit code 1."""
    serve(FakeSteward(Board(LOADING)))

    assert stoker("ready", "--wait", "--timeout", 0.05).code == 1


def test_ready_waits_for_a_daemon_that_is_just_starting(
    stoker: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stoker run & stoker ready --wait` works: the daemon may appear a little later than the question."""
    daemon = serve(FakeSteward())
    places = iter([daemon.socket.with_name("not-yet")] * 3 + [daemon.socket])
    monkeypatch.setattr(ask, "connect", lambda _: connect(next(places)))

    assert stoker("ready", "--wait").code == 0
    assert list(places) == []


def test_ready_gives_up_on_a_daemon_that_does_not_appear(stoker: Run) -> None:
    """Without any daemon waiting ends soon, with exit code 3."""
    assert stoker("ready", "--wait", "--timeout", 0.1).code == 3


def test_status_shows_everything(stoker: Run, serve: Serve) -> None:
    """The table has phase, model, worker, warmup, cache, requests, speed, restarts and logs; no terminal codes."""
    serve(FakeSteward(logs={"daemon": "/logs/daemon.log"}))
    outcome = stoker("status")

    assert outcome.code == 0
    for fact in (
        "ready, warm",
        "SmolLM2-135M-Instruct (embedded)",
        "http://127.0.0.1:11500/v1",
        "pid 4712, up 1 min 5 s, 412.0 MB",
        "system 1,832 tokens (prefilled, 1.90 s)",
        "3 entries, 1 pinned, 210.0 MB of 2.1 GB; 10 hits, 2 misses, 0 evictions",
        "1 running, 0 waiting, 12 served",
        "812 prompt, 43.2 generation",
        "generation 0: killed by SIGKILL",
        "/logs/daemon.log",
    ):
        assert fact in outcome.out
    assert "\x1b" not in outcome.out


def test_status_of_a_failed_daemon_has_the_last_words(stoker: Run, serve: Serve) -> None:
    """What the dead worker said last is shown, without what could command the terminal."""
    serve(FakeSteward(Board(FAILED), last_words=("Traceback …", "\x1b[2Jout of memory")))
    out = stoker("status").out

    assert "failed: the model is unusable" in out
    assert "out of memory" in out
    assert "\x1b" not in out


def test_status_in_json_is_the_whole_report(stoker: Run, serve: Serve) -> None:
    """`--json` prints the document of the control socket in one line."""
    serve(FakeSteward())
    outcome = stoker("status", "--json")

    assert json.loads(outcome.out)["worker"]["pid"] == 4712
    assert outcome.out.count("\n") == 1


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_status_follows_until_the_daemon_ends(flags: list[str]) -> None:
    """`--watch` prints a line for each transition that is pushed, and ends with the daemon: exit code 3."""
    with ExitStack() as stack:
        daemon = stack.enter_context(background(FakeSteward(Board(LOADING))))
        process = stack.enter_context(stoker_process("status", "--watch", "--socket", str(daemon.socket), *flags))
        assert process.stdout is not None
        first = process.stdout.readline()
        daemon.publish(READY)
        second = process.stdout.readline()
        daemon.end()
        _, err = process.communicate(timeout=30)

    assert (process.returncode, "went away" in err) == (3, True)
    assert "loading" in first
    assert "ready" in second
    assert bool(flags) == first.startswith("{")
