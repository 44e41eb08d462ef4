from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from stoker.ipc.unix_stream import UnixStream, accept_unix, connect_unix
from tests.fakes.fake_steward import short_directory

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The product runs on asyncio, its tests in virtual time on trio."""
    backend: str = request.param
    return backend


@pytest.fixture
def pair() -> Iterator[tuple[UnixStream, UnixStream]]:
    left, right = socket.socketpair()
    with left, right:
        yield UnixStream(left), UnixStream(right)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with short_directory() as folder, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s"))
        listening.listen(0)
        listening.settimeout(0)
        yield listening


async def test_what_is_sent_is_received(pair: tuple[UnixStream, UnixStream]) -> None:
    """More than the kernel buffers gets through, whole and in order."""
    left, right = pair
    payload, received = os.urandom(3_000_000), bytearray()
    async with anyio.create_task_group() as group:
        group.start_soon(left.send, payload)
        while len(received) < len(payload):
            received += await right.receive()

    assert received == payload


async def test_the_end_is_told_apart_from_a_break(pair: tuple[UnixStream, UnixStream]) -> None:
    """A closed other end is an end for who receives, and a break for who sends."""
    left, right = pair
    await right.aclose()

    with pytest.raises(anyio.EndOfStream):
        await left.receive()
    with pytest.raises(anyio.BrokenResourceError):
        await left.send(b"x")
    with pytest.raises(anyio.ClosedResourceError):
        await right.receive()


async def test_after_send_eof_answers_still_come(pair: tuple[UnixStream, UnixStream]) -> None:
    """Half-closing says that no more will be sent, and nothing about receiving."""
    left, right = pair
    await left.send_eof()
    with pytest.raises(anyio.EndOfStream):
        await right.receive()
    await right.send(b"answer")

    assert await left.receive() == b"answer"


async def test_closing_wakes_who_receives(pair: tuple[UnixStream, UnixStream]) -> None:
    """A task that waits for data learns that the stream was closed by another one."""
    left, _ = pair
    woken = anyio.Event()

    async def wait() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await left.receive()
        woken.set()

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await left.aclose()
        with anyio.fail_after(5):
            await woken.wait()


async def test_a_wait_may_be_cancelled_in_the_instant_the_data_comes(pair: tuple[UnixStream, UnixStream]) -> None:
    """Cancelling a receiver while its socket turns readable leaves no error behind, and the stream usable."""
    left, right = pair
    for _ in range(5):
        async with anyio.create_task_group() as group:
            group.start_soon(left.receive)
            for _ in range(3):
                await checkpoint()  # until it waits for the socket
            await right.send(b"x")
            await checkpoint()  # the loop's next turn sees both
            group.cancel_scope.cancel()

    await right.send(b"end")
    with anyio.fail_after(5):
        assert (await left.receive()).endswith(b"end")


async def test_connections_are_accepted_and_made(listener: socket.socket) -> None:
    """Who connects and who accepts can talk to each other."""
    async with anyio.create_task_group() as group:
        accepted: list[UnixStream] = []

        async def accept() -> None:
            accepted.append(await accept_unix(listener))

        group.start_soon(accept)
        async with await connect_unix(listener.getsockname()) as client:
            await client.send(b"hello")
            await anyio.wait_all_tasks_blocked()
            async with accepted[0] as served:
                assert await served.receive() == b"hello"


async def test_a_full_backlog_is_waited_for(listener: socket.socket) -> None:
    """Who connects while too many wait gets through when they are accepted, without an error."""
    clients: list[UnixStream] = []

    async def connect() -> None:
        clients.append(await connect_unix(listener.getsockname()))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(connect)
            served = [await accept_unix(listener) for _ in range(5)]
    for stream in (*clients, *served):
        await stream.aclose()

    assert len(clients) == len(served) == 5


async def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    """Connecting to a path without a listener raises at once."""
    with pytest.raises(FileNotFoundError):
        await connect_unix(tmp_path / "missing")
