"""Frames over real sockets and in virtual time: whole, in order, and never waiting for ever."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
import trio.testing
from anyio.abc import ByteStream

from stoker.ipc.channel import SEND_TIMEOUT, Channel, ChannelClosed
from stoker.ipc.framing import (
    LIMIT,
    Frame,
    FrameTooLong,
    Malformed,
    Notification,
    Request,
    Response,
    TruncatedFrame,
    encode,
)
from stoker.ipc.messages import Cancel, Generate, Hello, TextPrompt, Welcome
from stoker.ipc.unix_stream import UnixStream
from tests.fakes.dialects import DAEMON, WORKER
from tests.fakes.memory_stream import memory_pair

pytestmark = pytest.mark.anyio

VIRTUAL_TIME = pytest.param(("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}), id="virtual time")

HELLO = Request(0, Hello(protocol=1, pid=7, stoker="1", python="3"))


def generate(request_id: int, size: int) -> Frame:
    return Request(request_id, Generate(prompt=TextPrompt(text="x" * size)))


def socket_pair() -> tuple[ByteStream, ByteStream]:
    left, right = socket.socketpair(socket.AF_UNIX)
    return UnixStream(left), UnixStream(right)


@pytest.fixture(params=["sockets", "memory"])
async def streams(
    request: pytest.FixtureRequest, anyio_backend: object
) -> AsyncIterator[tuple[ByteStream, ByteStream]]:
    """Both ends of a connection, the daemon's first."""
    ends = memory_pair() if request.param == "memory" else socket_pair()
    async with ends[0], ends[1]:
        yield ends


async def receive(channel: Channel, count: int) -> list[Frame | Malformed]:
    with anyio.fail_after(20):
        return [await channel.receive() for _ in range(count)]


async def test_frames_go_both_ways(streams: tuple[ByteStream, ByteStream]) -> None:
    """Each end reads what the other sent, in its order."""
    daemon, worker = Channel(streams[0], DAEMON), Channel(streams[1], WORKER)
    welcome = Response(0, Welcome(protocol=1, generation=1))
    cancel = Notification(Cancel(target=1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.send, HELLO)
        assert await receive(daemon, 1) == [HELLO]
        for frame in (welcome, cancel):
            tasks.start_soon(daemon.send, frame)
            assert await receive(worker, 1) == [frame]


async def test_long_frame_arrives_whole() -> None:
    """A frame far over a socket's buffer arrives whole."""
    ends = socket_pair()
    frame = generate(1, LIMIT - 1000)
    async with (
        Channel(ends[0], DAEMON) as daemon,
        Channel(ends[1], WORKER) as worker,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(daemon.send, frame)

        assert await receive(worker, 1) == [frame]


async def test_many_senders_never_mix_their_lines(streams: tuple[ByteStream, ByteStream]) -> None:
    """Tasks may send at once; each frame stays in one piece."""
    daemon, worker = Channel(streams[0], DAEMON), Channel(streams[1], WORKER)
    frames = [generate(index, 200 * index) for index in range(30)]

    async with anyio.create_task_group() as tasks:
        for frame in frames:
            tasks.start_soon(daemon.send, frame)
        received = await receive(worker, len(frames))

    assert sorted(received, key=repr) == sorted(frames, key=repr)


async def test_malformed_line_is_handed_over_and_the_connection_goes_on(
    streams: tuple[ByteStream, ByteStream],
) -> None:
    """The receiver gets a malformed line with its answer, then the next frame."""
    worker = Channel(streams[1], WORKER)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(streams[0].send, b"garbage\n" + encode(generate(1, 1)))
        bad, good = await receive(worker, 2)

    assert isinstance(bad, Malformed)
    assert good == generate(1, 1)


async def test_peer_that_closes_between_frames(streams: tuple[ByteStream, ByteStream]) -> None:
    """What was sent before the end is received, then the end, as often as one asks."""
    daemon, worker = Channel(streams[0], DAEMON), Channel(streams[1], WORKER)
    await daemon.send(Notification(Cancel(target=1)))
    await daemon.aclose()

    assert await receive(worker, 1) == [Notification(Cancel(target=1))]
    for _ in range(2):
        with pytest.raises(ChannelClosed):
            await receive(worker, 1)


async def test_peer_that_closes_inside_a_frame(streams: tuple[ByteStream, ByteStream]) -> None:
    """Half a line and the end is a broken protocol, not an ordinary end."""
    worker = Channel(streams[1], WORKER)
    await streams[0].send(b'{"jsonrpc"')
    await streams[0].aclose()

    with pytest.raises(TruncatedFrame):
        await receive(worker, 1)


async def test_line_over_the_limit_ends_the_reading() -> None:
    """Good frames before a line over the limit are received, then the error, as often as one asks."""
    ends = socket_pair()
    async with (
        ends[0] as sender,
        Channel(ends[1], WORKER) as worker,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(sender.send, encode(generate(1, 1)) + b"x" * (LIMIT + 200_000))

        assert await receive(worker, 1) == [generate(1, 1)]
        for _ in range(2):
            with pytest.raises(FrameTooLong):
                await receive(worker, 1)
        tasks.cancel_scope.cancel()


async def test_sending_to_a_peer_that_left(streams: tuple[ByteStream, ByteStream]) -> None:
    """A sender learns that nobody is there."""
    daemon = Channel(streams[0], DAEMON)
    await streams[1].aclose()

    with pytest.raises(ChannelClosed):
        await daemon.send(generate(1, 1_000_000))


async def test_own_closed_channel(streams: tuple[ByteStream, ByteStream]) -> None:
    """A closed channel neither sends nor receives, and says so."""
    daemon = Channel(streams[0], DAEMON)
    await daemon.aclose()

    with pytest.raises(ChannelClosed):
        await daemon.send(generate(1, 1))
    with pytest.raises(ChannelClosed):
        await daemon.receive()


async def test_leaving_the_block_closes(streams: tuple[ByteStream, ByteStream]) -> None:
    """A channel is closed at the end of its block."""
    async with Channel(streams[0], DAEMON):
        pass

    with pytest.raises(ChannelClosed):
        await receive(Channel(streams[1], WORKER), 1)


async def test_frame_over_the_limit_is_refused_and_nothing_is_sent(streams: tuple[ByteStream, ByteStream]) -> None:
    """A frame that is too long is the caller's error; the connection stays."""
    daemon, worker = Channel(streams[0], DAEMON), Channel(streams[1], WORKER)

    with pytest.raises(FrameTooLong):
        await daemon.send(generate(1, LIMIT))

    await daemon.send(Notification(Cancel(target=1)))
    assert await receive(worker, 1) == [Notification(Cancel(target=1))]


async def test_cancelled_sender_still_sends_the_whole_frame(streams: tuple[ByteStream, ByteStream]) -> None:
    """A cancel in the middle of a frame never leaves half a line behind."""
    daemon, worker = Channel(streams[0], DAEMON), Channel(streams[1], WORKER)

    long = generate(1, 1_000_000)
    scope = anyio.CancelScope()

    async def send_and_be_cancelled() -> None:
        with scope:
            await daemon.send(long)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send_and_be_cancelled)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        assert await receive(worker, 1) == [long]
        tasks.start_soon(daemon.send, generate(2, 1))
        assert await receive(worker, 1) == [generate(2, 1)]


@pytest.mark.parametrize("anyio_backend", [VIRTUAL_TIME])
async def test_cancelled_while_it_waits_its_turn(anyio_backend: Any) -> None:
    """A sender cancelled before its turn has sent nothing, and the connection goes on."""
    ends = memory_pair()
    daemon, worker = Channel(ends[0], DAEMON), Channel(ends[1], WORKER)
    first, second, third = (generate(index, 1000) for index in range(3))

    async with daemon, worker, anyio.create_task_group() as tasks:
        tasks.start_soon(daemon.send, first)
        await anyio.wait_all_tasks_blocked()
        with anyio.move_on_after(1):
            await daemon.send(second)
        tasks.start_soon(daemon.send, third)

        assert await receive(worker, 2) == [first, third]


@pytest.mark.parametrize("anyio_backend", [VIRTUAL_TIME])
async def test_peer_that_does_not_read_is_given_up(anyio_backend: Any) -> None:
    """A frame that nobody takes ends the connection after the deadline, and not before."""
    ends = memory_pair()
    daemon = Channel(ends[0], DAEMON)
    began = anyio.current_time()

    async with ends[1]:
        with pytest.raises(ChannelClosed):
            await daemon.send(generate(1, 10_000))
        assert anyio.current_time() - began == pytest.approx(SEND_TIMEOUT)
        with pytest.raises(TruncatedFrame):
            await receive(Channel(ends[1], WORKER), 1)


@pytest.mark.parametrize("anyio_backend", [VIRTUAL_TIME])
async def test_slow_reader_slows_the_sender(anyio_backend: Any) -> None:
    """A sender waits for its reader: what is not read is not piled up."""
    ends = memory_pair()
    daemon, worker = Channel(ends[0], DAEMON), Channel(ends[1], WORKER)
    sent = 0

    async def send_all() -> None:
        nonlocal sent
        for index in range(20):
            await daemon.send(generate(index, 100))
            sent += 1

    async with daemon, worker, anyio.create_task_group() as tasks:
        tasks.start_soon(send_all)
        for read in range(20):
            await anyio.sleep(SEND_TIMEOUT / 2)
            assert sent <= read + 1
            await receive(worker, 1)


@pytest.mark.parametrize("anyio_backend", [VIRTUAL_TIME])
async def test_cancelled_receiver_loses_nothing(anyio_backend: Any) -> None:
    """A receive that is cancelled inside a frame goes on with it the next time."""
    ends = memory_pair()
    worker = Channel(ends[1], WORKER)
    line = encode(generate(1, 10))

    async with ends[0], worker:
        await ends[0].send(line[:30])
        with anyio.move_on_after(1) as scope:
            await worker.receive()
        assert scope.cancelled_caught
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ends[0].send, line[30:])
            assert await receive(worker, 1) == [generate(1, 10)]
