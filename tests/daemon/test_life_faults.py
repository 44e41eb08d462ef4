"""A generation's life with a real process that misbehaves: each fault has its news, and its end."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from socket import socket

import anyio
import pytest

from stoker.daemon import life as life_module
from stoker.daemon.life import LINK_GRACE
from stoker.daemon.lifecycle import (
    Exited,
    Greeted,
    LinkLost,
    Loaded,
)
from stoker.daemon.link import WorkerLost
from stoker.ipc.messages import Finished
from stoker.ipc.peer import Peer
from stoker.ipc.unix_stream import UnixStream, accept_unix
from tests.fakes.fake_daemon import GENERATE, fault
from tests.fakes.fake_scenario import COMMAND
from tests.fakes.living import Live, names_in

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_children")]


# -- workers that don't get far ----------------------------------------------------------------------------


async def test_exit_before_hello(live: Live) -> None:
    """A worker that ends before its hello is told by its exit alone, without delay, with its last words."""
    async with live(fault("start", "exit", code=3)) as alive:
        assert (await alive.until(Exited)).cause == "exited with code 3"

    assert alive.events == []
    assert alive.life.last_words == ("fault: exit at start 0",)
    assert alive.lines == ["fault: exit at start 0"]


async def test_exit_before_connecting(live: Live) -> None:
    """A program that never connects at all is told by its exit as soon as it ends."""
    async with live(command=("/bin/sh", "-c", "echo no such module >&2; exit 1")) as alive:
        began = anyio.current_time()
        assert (await alive.until(Exited)).cause == "exited with code 1"

    assert anyio.current_time() - began < LINK_GRACE
    assert alive.life.last_words == ("no such module",)


async def test_mute_worker(live: Live) -> None:
    """A worker that says nothing causes no event at all, and can be killed."""
    async with live(fault("start", "hang")) as alive:
        await alive.when(lambda: alive.lines)
        assert alive.events == []

        assert await alive.end() == "ended by SIGKILL, as asked"


async def test_program_that_is_missing(live: Live, short_dir: Path) -> None:
    """A worker that can't be started is an exit with the system's reason."""
    async with live(command=("/nowhere/python",)) as alive:
        cause = (await alive.until(Exited)).cause

    assert cause.startswith("could not be started: ")
    assert "No such file" in cause
    assert alive.life.last_words == ()
    assert names_in(short_dir) == []


async def test_socket_that_can_not_be_made(live: Live, short_dir: Path) -> None:
    """A worker whose socket can't be made is an exit, too, and not the daemon's end."""
    async with live(socket_dir=short_dir / "missing") as alive:
        assert "could not be started: cannot listen on" in (await alive.until(Exited)).cause


async def test_killed_while_being_spawned(live: Live) -> None:
    """An order to end that comes before the process exists is its first one."""
    async with live() as alive:
        alive.life.kill()
        assert (await alive.until(Exited)).cause == "ended by SIGKILL, as asked"

    assert alive.events == []


async def test_other_protocol_version(live: Live) -> None:
    """A worker of another version is told by its version, although it ends by itself when refused."""
    async with live({"hello": {"protocol": 99}}) as alive:
        lost = await alive.until(LinkLost)
        assert lost.why == "the daemon speaks protocol 1, the worker 99; install the same version of both"
        assert (await alive.until(Exited)).cause == "exited with code 78"

    assert "fatal: refused by the daemon" in alive.life.last_words[-1]


async def test_stranger_at_the_socket(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection from another user is closed without a word."""
    monkeypatch.setattr(life_module, "peer", lambda _: Peer(os.geteuid() + 1, None))
    async with live() as alive:
        assert (await alive.until(Exited)).cause == "exited with code 0"

    assert alive.events == []


async def test_listener_that_breaks(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the connection can't be accepted, that is this life's trouble, and not the daemon's end."""

    async def fail(_: object) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(life_module, "accept_unix", fail)
    async with live(fault("hello", "hang")) as alive:
        assert "could not be accepted: [Errno 9]" in (await alive.until(LinkLost)).why
        await alive.end()


async def test_no_descriptors_left(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """While descriptors are lacking the connection waits to be accepted, and the worker is not blamed."""
    lacking = [OSError(24, "Too many open files")] * 3

    async def scarce(listener: socket) -> UnixStream:
        if lacking:
            raise lacking.pop()
        return await accept_unix(listener)

    monkeypatch.setattr(life_module, "accept_unix", scarce)
    monkeypatch.setattr(life_module, "ACCEPT_PAUSE", 0.01)
    async with live() as alive:
        await alive.until(Greeted)
        assert lacking == []
        await alive.end()


# -- workers that misbehave --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("misdeed", "why"),
    [
        ({"do": "garbage"}, "broke the protocol: not a line of UTF-8 JSON"),
        ({"do": "oversize"}, "broke the protocol: a message is longer than 16777216 bytes"),
        ({"do": "raw", "text": "[]\n"}, "batch requests are not supported"),
        ({"do": "close"}, "the worker closed its connection"),
    ],
    ids=lambda value: value.get("do") if isinstance(value, dict) else "",
)
async def test_breach_of_the_protocol(live: Live, misdeed: dict[str, str], why: str) -> None:
    """A worker that breaks the protocol, or hangs up, and lives on is told by its lost link."""
    async with live({"ignore_eof": True, **fault("welcome", **misdeed)}) as alive:
        await alive.until(Greeted)
        assert why in (await alive.until(LinkLost)).why
        assert alive.link.lost
        assert await alive.end() == "ended by SIGKILL, as asked"


@pytest.mark.parametrize("first", [[], [{"at": "welcome", "do": "half_frame"}]], ids=["between", "inside"])
async def test_killed_from_elsewhere(live: Live, first: list[dict[str, str]]) -> None:
    """A worker that is killed is told by its exit alone, between two messages and inside one."""
    killed = {"at": "welcome", "do": "signal", "signal": int(signal.SIGKILL)}
    async with live({"faults": [*first, killed]}) as alive:
        assert "killed by SIGKILL, not by Stoker" in (await alive.until(Exited)).cause

    assert [type(event) for event in alive.events] == [Greeted]


async def test_half_a_message_and_silence(live: Live) -> None:
    """Half a message without an end neither hangs the life nor hinders its end."""
    async with live({"faults": [{"at": "welcome", "do": "half_frame"}, {"at": "welcome", "do": "hang"}]}) as alive:
        await alive.until(Greeted)
        assert await alive.end() == "ended by SIGKILL, as asked"


async def test_worker_that_ignores_term(live: Live) -> None:
    """A worker that doesn't hear TERM is ended by KILL."""
    async with live({"ignore_term": True}) as alive:
        await alive.until(Greeted)
        alive.life.terminate()
        with anyio.move_on_after(0.1):
            await alive.until(Exited)
            pytest.fail("it was not to hear TERM")

        assert await alive.end() == "ended by SIGKILL, as asked"


async def test_stopped_worker_hears_term(live: Live) -> None:
    """A worker that was stopped by a signal ends when asked."""
    async with live(fault("welcome", "signal", signal=int(signal.SIGSTOP))) as alive:
        await alive.until(Greeted)
        await alive.when(lambda: any("signal at welcome" in line for line in alive.lines))
        alive.life.terminate()

        assert (await alive.until(Exited)).cause in {"exited with code 0", "ended by SIGTERM, as asked"}


async def test_flood_on_stderr(live: Live) -> None:
    """A worker that floods its output is not held up by it."""
    async with live(fault("load", "stderr", count=4_000_000)) as alive:
        await alive.until(Greeted)
        alive.tasks.start_soon(alive.life.load)
        await alive.until(Loaded)

        assert sum(map(len, alive.lines)) > 3_900_000


async def test_flood_of_progress(live: Live) -> None:
    """A worker that floods the connection is read, and its answer comes through."""
    async with live(fault("load", "flood", count=5000)) as alive:
        await alive.until(Greeted)
        alive.tasks.start_soon(alive.life.load)
        await alive.until(Loaded)

        assert alive.progress[-1].done == 2


@pytest.mark.parametrize("setsid", [False, True], ids=["in its group", "escaped"])
async def test_grandchild_that_holds_everything(live: Live, setsid: bool) -> None:
    """A grandchild that holds the socket and the output delays the exit by the graces at most."""
    async with live({"faults": [{"at": "welcome", "do": "grandchild", "setsid": setsid}]}) as alive:
        await alive.until(Greeted)
        await alive.when(lambda: any(line.startswith("grandchild ") for line in alive.lines))
        child = alive.grandchild()
        began = anyio.current_time()
        os.kill(alive.life.pid or 0, signal.SIGKILL)
        try:
            assert "killed by SIGKILL" in (await alive.until(Exited)).cause
            assert anyio.current_time() - began < (2 + LINK_GRACE if setsid else 1)
        finally:
            if setsid:
                os.kill(child, signal.SIGKILL)

    assert alive.events == []


@pytest.mark.skipif(shutil.which("setsid") is None, reason="needs a program that makes a session")
async def test_holder_of_the_output_does_not_hide_the_cause(live: Live) -> None:
    """A grandchild that holds only the output delays the exit, but a killed worker is still told as killed."""
    script = 'setsid sleep 60 & echo "grandchild $!" >&2; exec "$@"'
    async with live(command=("/bin/sh", "-c", script, "sh", *COMMAND)) as alive:
        await alive.until(Greeted)
        os.kill(alive.life.pid or 0, signal.SIGKILL)
        assert "killed by SIGKILL, not by Stoker" in (await alive.until(Exited)).cause
        os.kill(alive.grandchild(), signal.SIGKILL)

    assert alive.events == []


async def test_open_requests_hear_of_the_end(live: Live) -> None:
    """Whoever waits for an answer when the worker dies is told, and so is whoever asks afterwards."""
    async with live(fault("generate", "exit", step=2)) as alive:
        await alive.until(Greeted)
        link = alive.link
        with pytest.raises(WorkerLost, match="the worker closed its connection"):
            await link.call(GENERATE, Finished)
        await alive.until(Exited)

        with pytest.raises(WorkerLost):
            await link.call(GENERATE, Finished)


async def test_holder_of_the_socket_keeps_no_request_waiting(live: Live) -> None:
    """Even if a grandchild keeps the connection open, requests end when the worker has."""
    faults = [{"at": "welcome", "do": "grandchild", "setsid": True}, {"at": "generate", "do": "exit"}]
    async with live({"faults": faults}) as alive:
        await alive.until(Greeted)
        link = alive.link
        with pytest.raises(WorkerLost, match="the worker exited with code 1"):
            await link.call(GENERATE, Finished)
        await alive.until(Exited)
        os.kill(alive.grandchild(), signal.SIGKILL)
