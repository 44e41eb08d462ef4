"""The fake worker breaks the protocol, but only as told."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

import psutil
import pytest

from stoker.ipc.framing import (
    LIMIT,
    Frame,
    FrameTooLong,
    Malformed,
    Notification,
    Request,
    Response,
    TruncatedFrame,
)
from stoker.ipc.messages import (
    PROTOCOL_VERSION,
    Cancel,
    Generate,
    Loaded,
    Statistics,
    TextPrompt,
)
from tests.fakes.fake_daemon import GENERATE, LOAD, WARM, Start, fault, progress_of, result_of, tokens_of
from tests.fakes.fake_scenario import answer


def test_crash_at_a_token(start: Start) -> None:
    """An exit at token n comes after n tokens were sent."""
    daemon = start(fault("generate", "exit", step=3, code=5))
    daemon.welcome()
    daemon.send(Request(1, GENERATE))

    assert tokens_of(list(daemon.frames)) == answer(GENERATE, 3)
    assert daemon.gone() == 5


def test_signal_to_itself(start: Start) -> None:
    """A fault can be a signal, at the first request for example."""
    daemon = start(fault("generate", "signal", signal=int(signal.SIGSEGV)))
    daemon.welcome()
    daemon.send(Request(1, GENERATE))

    assert daemon.gone() == -signal.SIGSEGV


def test_poison_request_is_told_by_its_text(start: Start) -> None:
    """A fault can be bound to requests that contain a text."""
    daemon = start(fault("generate", "exit", containing="poison"))
    daemon.welcome()

    assert daemon.ask(GENERATE)
    daemon.send(Request(2, Generate(prompt=TextPrompt(text="poison pill"))))
    assert daemon.gone() == 1


def test_hang_silences_the_compute_thread_only(start: Start) -> None:
    """A hung worker answers nothing more, not even figures, but still notices that the daemon left."""
    daemon = start(fault("generate", "hang", step=2))
    daemon.welcome()
    daemon.send(Request(1, GENERATE))
    heard: list[Frame | Malformed] = []
    while len(tokens_of(heard)) < 2:
        heard += daemon.until(Notification)
    daemon.send(Request(2, Statistics()))
    daemon.socket.shutdown(socket.SHUT_WR)

    assert tokens_of(heard) == answer(GENERATE, 2)
    assert list(daemon.frames) == []
    assert daemon.gone() == 0


def test_stall_stops_one_request_only(start: Start) -> None:
    """A stalled request leaves the others alone."""
    daemon = start(fault("generate", "stall", containing="slow"))
    daemon.welcome()
    daemon.send(Request(1, Generate(prompt=TextPrompt(text="slow"))))

    assert tokens_of(daemon.ask(GENERATE, 2)) == answer(GENERATE, 6)


def test_garbage_is_malformed(start: Start) -> None:
    """Garbage bytes arrive as a line that is no JSON."""
    daemon = start(fault("welcome", "garbage"))
    daemon.welcome()

    assert isinstance(next(daemon.frames), Malformed)


def test_half_a_frame_then_the_end(start: Start) -> None:
    """Half a frame and an exit end the stream inside a line."""
    daemon = start({"faults": [{"at": "welcome", "do": "half_frame"}, {"at": "welcome", "do": "exit"}]})
    daemon.welcome()

    with pytest.raises(TruncatedFrame):
        next(daemon.frames)


def test_half_a_frame_then_silence(start: Start) -> None:
    """Half a frame and a hang leave the reader with a rest and the connection open."""
    daemon = start({"faults": [{"at": "welcome", "do": "half_frame"}, {"at": "welcome", "do": "hang"}]})
    daemon.welcome()

    assert list(daemon.decoder.feed(daemon.socket.recv(65536))) == []
    assert daemon.decoder.buffered > 0
    assert daemon.process.poll() is None


def test_oversize_line(start: Start) -> None:
    """A line over the limit is noticed by the decoder."""
    daemon = start(fault("welcome", "oversize"))
    daemon.welcome()

    with pytest.raises(FrameTooLong, match=str(LIMIT)):
        next(daemon.frames)


def test_flood_of_frames(start: Start) -> None:
    """A flood is as many valid frames as asked for."""
    daemon = start(fault("load", "flood", count=500))
    daemon.welcome()

    assert len(progress_of(daemon.ask(LOAD))) == 502


@pytest.mark.parametrize("newline", [True, False])
def test_flood_on_stderr(start: Start, *, newline: bool) -> None:
    """A flood on stderr holds the worker up until it is read, and may be one endless line."""
    daemon = start(fault("start", "stderr", count=1 << 20, newline=newline))
    stderr = daemon.process.stderr
    assert stderr is not None

    size = 0
    while size < 1 << 20:
        size += len(os.read(stderr.fileno(), 65536))

    assert daemon.welcome().protocol == PROTOCOL_VERSION


def test_term_is_obeyed_unless_ignored(start: Start) -> None:
    """SIGTERM ends it with 0; told to ignore it, it goes on serving."""
    obedient, stubborn = start(), start({"ignore_term": True})
    for daemon in (obedient, stubborn):
        daemon.welcome()
        daemon.ask(LOAD)
        daemon.process.terminate()

    assert obedient.gone() == 0
    assert isinstance(result_of(stubborn.ask(LOAD)), Loaded)


def test_end_of_the_connection_may_be_ignored(start: Start) -> None:
    """Told to ignore the end of its socket, it lives on."""
    daemon = start({"ignore_eof": True})
    daemon.welcome()
    daemon.ask(LOAD)
    daemon.socket.close()

    with pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(0.2)


def test_close_leaves_the_process(start: Start) -> None:
    """A worker can lose its socket without dying."""
    daemon = start(fault("welcome", "close"))
    daemon.welcome()

    assert list(daemon.frames) == []
    assert daemon.process.poll() is None


@pytest.mark.parametrize("setsid", [True, False])
def test_grandchild_outlives_its_parent(start: Start, *, setsid: bool) -> None:
    """A grandchild, in the group or out of it, keeps the socket open when its parent is dead."""
    daemon = start(fault("welcome", "grandchild", setsid=setsid))
    daemon.welcome()
    daemon.ask(LOAD)
    (grandchild,) = psutil.Process(daemon.process.pid).children()
    daemon.process.kill()
    daemon.gone()

    assert (os.getpgid(grandchild.pid) == daemon.process.pid) is not setsid
    daemon.socket.settimeout(0)
    with pytest.raises(BlockingIOError):
        daemon.socket.recv(1)
    grandchild.kill()


def test_zombies(start: Start) -> None:
    """Children that ended are left unreaped."""
    daemon = start(fault("welcome", "zombies", count=3))
    daemon.welcome()
    daemon.ask(LOAD)

    assert len(psutil.Process(daemon.process.pid).children()) == 3


def test_delayed_fault_does_not_hold_up_the_work(start: Start) -> None:
    """A fault with a delay strikes later, while answers go out."""
    daemon = start(fault("loaded", "exit", delay=0.05, code=4))
    daemon.welcome()

    assert isinstance(result_of(daemon.ask(LOAD)), Loaded)
    assert daemon.gone() == 4


def test_late_answer_to_a_cancel(start: Start) -> None:
    """The answer to a cancelled warmup can be late."""
    daemon = start({"warm": {"seconds": 3600, "late": 0.05}})
    daemon.welcome()
    daemon.send(Request(1, WARM))
    began = time.monotonic()
    daemon.send(Notification(Cancel(target=1)))

    assert result_of(daemon.until(Response)).reason == "cancelled"
    assert time.monotonic() - began >= 0.05


def test_misspelt_scenario_is_an_error(start: Start) -> None:
    """A scenario with an unknown key ends the process instead of behaving."""
    daemon = start({"laod": {}})

    assert daemon.gone() == 1
