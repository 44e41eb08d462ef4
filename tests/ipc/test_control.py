from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import anyio
import pytest

from stoker.daemon.readiness import Board
from stoker.daemon.runtime_dir import listen
from stoker.daemon.steward import Refusal
from stoker.ipc.channel import Channel
from stoker.ipc.control import ClientError, ControlError, DaemonAbsent, NoAnswer, connect
from stoker.ipc.control_requests import CONTROL_REQUESTS
from stoker.ipc.errors import ErrorCode
from stoker.ipc.framing import LIMIT, Dialect, ErrorResponse, Frame, Malformed, Request, Response
from stoker.ipc.messages import WarmPrefix
from stoker.ipc.unix_stream import accept_unix
from tests.fakes.fake_steward import (
    LISTING,
    LOADING,
    MEASURED,
    PREFIX,
    READY,
    STORED,
    FakeSteward,
    changed,
    served,
    short_directory,
)

pytestmark = pytest.mark.anyio

Script: TypeAlias = Callable[[Channel], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[Path]:
    """A socket where one client is treated as the script says."""
    with short_directory() as folder:
        listener = listen(folder / "s")

        async def serve() -> None:
            with listener:
                async with Channel(await accept_unix(listener), Dialect(requests=CONTROL_REQUESTS)) as channel:
                    await script(channel)

        async with anyio.create_task_group() as group:
            group.start_soon(serve)
            yield folder / "s"
            group.cancel_scope.cancel()


async def request(channel: Channel) -> Request:
    frame: Frame | Malformed = await channel.receive()
    assert isinstance(frame, Request)
    return frame


async def test_each_question_has_its_typed_answer() -> None:
    """Every method of the control socket can be called, and answers with its type."""
    steward = FakeSteward()
    prompts = (WarmPrefix(name="agent", system="Be brief."),)
    async with served(steward) as path, connect(path) as client:
        assert await client.ready() == READY
        assert await client.wait_ready(1e12) == READY
        assert (await client.status()).model == "SmolLM2-135M-Instruct"
        assert (await client.version()).protocol == 1
        assert await client.measure() == MEASURED
        assert (await client.rewarm(prompts)).prefixes == (PREFIX,)
        await client.restart(cold=True)
        await client.stop()

    assert steward.asked == ["status", "measure", prompts, ("restart", True), "stop"]


async def test_questions_and_orders_about_prefixes() -> None:
    """They can be listed, pinned, unpinned and forgotten, one or all; orders say for how many."""
    steward = FakeSteward(count=3)
    async with served(steward) as path, connect(path) as client:
        assert await client.warm_list() == LISTING
        assert await client.warm_pin("learned-1") == 3
        assert await client.warm_pin("learned-1", pinned=False) == 3
        assert await client.warm_forget("learned-1") == 3
        assert await client.warm_forget() == 3

    assert steward.asked == [
        "warm_list",
        ("pin", "learned-1", True),
        ("pin", "learned-1", False),
        ("forget", "learned-1"),
        ("forget", None),
    ]


async def test_questions_and_orders_about_the_disk() -> None:
    """What is stored can be listed, verified and deleted, one or all; orders say for how many, and bytes."""
    steward = FakeSteward(count=3)
    async with served(steward) as path, connect(path) as client:
        assert await client.cache_list() == STORED
        assert len((await client.cache_verify()).prefixes) == len(STORED.prefixes)
        assert [one.key for one in (await client.cache_verify("2b" * 20)).prefixes] == ["2b" * 20]
        assert (await client.cache_clear()).count == 3
        assert (await client.cache_clear("agent", foreign=True)).count == 3

    assert steward.asked == [
        "cache_list",
        ("verify", None),
        ("verify", "2b" * 20),
        ("clear", None, False),
        ("clear", "agent", True),
    ]


async def test_the_client_knows_whose_daemon_it_is() -> None:
    """The daemon's process id comes from the kernel, before anything is asked."""
    async with served(FakeSteward()) as path, connect(path) as client:
        assert client.daemon.pid == os.getpid()


async def test_watch_yields_the_snapshot_then_every_change() -> None:
    """Watching shows the current snapshot first, and each later one."""
    steward = FakeSteward(Board(LOADING))
    async with served(steward) as path, connect(path) as client, aclosing(client.watch()) as changes:
        seen = [await anext(changes)]
        for generation in (2, 3):
            steward.board.publish(changed(LOADING, generation=generation))
            seen.append(await anext(changes))

    assert [readiness.generation for readiness in seen] == [1, 2, 3]


async def test_without_a_daemon_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    """A missing socket, a dead one and a path through a file are all an absent daemon."""
    with short_directory() as folder, socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "dead"))
        (folder / "file").touch()
        for path in (tmp_path / "missing", folder / "dead", folder / "file" / "s"):
            with pytest.raises(DaemonAbsent, match="stoker run"):
                async with connect(path):
                    pass


async def test_a_path_that_can_not_be_a_socket_is_no_absent_daemon(tmp_path: Path) -> None:
    """A path too long for the kernel is an error of its own, not an absent daemon."""
    with pytest.raises(ClientError, match="too long") as caught:
        async with connect(tmp_path / ("x" * 120)):
            pass

    assert not isinstance(caught.value, DaemonAbsent)


async def test_a_refusal_is_an_error_with_code_and_remedy() -> None:
    """What the daemon refuses is raised with its code, message and remedy."""
    steward = FakeSteward(fault=Refusal("no worker is ready", "wait for ready", ErrorCode.NOT_READY))
    async with served(steward) as path, connect(path) as client:
        with pytest.raises(ControlError, match="no worker is ready; wait for ready") as caught:
            await client.rewarm()

    assert (caught.value.code, caught.value.remedy) == (ErrorCode.NOT_READY, "wait for ready")


async def test_an_error_without_an_id_is_the_answer() -> None:
    """A daemon that can't tell which request was wrong, or refuses the whole connection, is understood."""

    async def refuse(channel: Channel) -> None:
        await channel.send(ErrorResponse(None, ErrorCode.REFUSED, "too many connections"))

    async with scripted(refuse) as path, connect(path) as client:
        with pytest.raises(ControlError, match="too many connections"):
            await client.ready()


async def test_a_late_answer_is_not_taken_for_the_next_one() -> None:
    """After its deadline a call raises, and the next call gets its own answer."""

    async def dawdle(channel: Channel) -> None:
        late, soon = await request(channel), await request(channel)
        await channel.send(Response(late.id, changed(READY, generation=1)))
        await channel.send(Response(soon.id, changed(READY, generation=2)))
        await anyio.sleep_forever()

    async with scripted(dawdle) as path, connect(path, within=0.05) as client:
        with pytest.raises(NoAnswer, match=r"`ready` within 0\.05 s"):
            await client.ready()
        assert (await client.wait_ready(10)).generation == 2


async def test_a_daemon_that_goes_away_is_absent() -> None:
    """The end of the connection in the middle of a call, and of a watch, is an absent daemon."""

    async def leave(channel: Channel) -> None:
        await request(channel)

    async with scripted(leave) as path, connect(path) as client:
        with pytest.raises(DaemonAbsent, match="went away"):
            await client.status()
        with pytest.raises(DaemonAbsent):
            await anext(client.watch())


async def test_an_answer_of_another_version_is_told_as_such() -> None:
    """A result that lacks what this client needs is no crash."""

    async def answer(channel: Channel) -> None:
        await channel.send(Response((await request(channel)).id, WarmPrefix(name="?")))

    async with scripted(answer) as path, connect(path) as client:
        with pytest.raises(NoAnswer, match="another version"):
            await client.ready()


async def test_too_large_a_request_is_refused_here() -> None:
    """A request over the protocol's limit is not sent, and the connection stays usable."""
    huge = (WarmPrefix(name="huge", system="x" * LIMIT),)
    async with served(FakeSteward()) as path, connect(path) as client:
        with pytest.raises(ControlError, match="limit"):
            await client.rewarm(huge)
        assert (await client.ready()).ready


async def test_closed_returns_when_the_daemon_is_done() -> None:
    """After `stop`, `closed` waits for the end of the connection, whatever comes before it."""

    async def stop(channel: Channel) -> None:
        await channel.send(Response((await request(channel)).id, READY))
        await channel.send(Response(99, READY))

    async with scripted(stop) as path, connect(path) as client:
        await client.ready()
        with anyio.fail_after(5):
            await client.closed()
