"""What the control socket's server bounds and survives."""

from __future__ import annotations

import json
import os
import resource
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack

import anyio
import pytest

from stoker.daemon import control
from stoker.daemon.control import IN_FLIGHT_LIMIT, ControlServer
from stoker.daemon.readiness import Board
from stoker.daemon.runtime_dir import listen
from stoker.ipc import channel
from stoker.ipc.errors import ErrorCode
from stoker.ipc.framing import LIMIT
from stoker.ipc.peer import Peer
from tests.fakes.control_client import dialled
from tests.fakes.fake_steward import LOADING, READY, FakeSteward, served, short_directory

pytestmark = pytest.mark.anyio


async def test_too_long_a_line_is_an_error_and_the_end() -> None:
    """A message over the limit is refused, and the connection closed, because its end can't be found."""
    async with served(FakeSteward()) as path, dialled(path) as client:
        with pytest.raises(anyio.BrokenResourceError):  # closed while we still send
            await client.stream.send(b"x" * 3 * LIMIT)

        assert f"{LIMIT} bytes" in (await client.line())["error"]["message"]
        assert await client.is_over()


async def test_half_a_line_harms_nobody() -> None:
    """A client that leaves inside a line is forgotten; others are served."""
    async with served(FakeSteward()) as path, dialled(path) as client:
        async with dialled(path) as hasty:
            await hasty.stream.send(b'{"jsonrpc":"2.0","id":1,"meth')
        await client.ask(1, "ready")

        assert (await client.result())["ready"] is True


async def test_a_half_closed_connection_gets_its_answers() -> None:
    """`printf … | nc -N` has closed its side before the answer is ready, and still gets it."""
    steward = FakeSteward(Board(LOADING))
    async with served(steward) as path, dialled(path) as client:
        await client.ask(1, "wait_ready", timeout=60)
        await client.stream.send_eof()
        steward.board.publish(READY)

        assert (await client.result())["ready"] is True
        assert await client.is_over()


async def test_another_users_process_is_refused() -> None:
    """A peer of another uid hears why, and nothing else."""
    steward = FakeSteward()
    server = ControlServer(steward, identify=lambda _: Peer(os.geteuid() + 1, None))
    async with served(steward, server) as path, dialled(path) as client:
        error = (await client.line())["error"]

        assert error["code"] == ErrorCode.REFUSED
        assert f"uid {os.geteuid()} only" in error["message"]
        assert await client.is_over()


async def test_a_peer_that_is_gone_does_not_stop_the_service() -> None:
    """A client whose identity can't be read is refused, and the next one served."""
    answers: Iterator[OSError | Peer] = iter([OSError(107, "not connected"), Peer(os.geteuid(), None)])

    def identify(_: socket.socket) -> Peer:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    steward = FakeSteward()
    async with served(steward, ControlServer(steward, identify=identify)) as path:
        async with dialled(path) as gone:
            assert (await gone.line())["error"]["code"] == ErrorCode.REFUSED
        async with dialled(path) as client:
            await client.ask(1, "ready")
            assert (await client.result())["ready"] is True


async def test_connections_are_bounded() -> None:
    """One connection too many is refused with a message; when another ends, there is room again."""
    steward = FakeSteward()
    async with served(steward, ControlServer(steward, connections=1)) as path:
        async with dialled(path) as first:
            await first.ask(1, "ready")
            await first.result()
            async with dialled(path) as second:
                assert "1 connections are open" in (await second.line())["error"]["message"]
                assert await second.is_over()
        while True:  # the server sees the end of the first one a little later than we do
            async with dialled(path) as third:
                await third.ask(1, "ready")
                if "result" in await third.line():
                    break


async def test_unanswered_requests_are_bounded() -> None:
    """A connection may have so many requests unanswered; one more is refused, `ready` is always answered."""
    steward = FakeSteward(Board(LOADING))
    async with served(steward) as path, dialled(path) as client:
        for request_id in range(IN_FLIGHT_LIMIT + 1):
            await client.ask(request_id, "wait_ready", timeout=60)
        refused = await client.line()
        await client.ask(99, "ready")
        quick = await client.line()
        steward.board.publish(READY)
        served_ids = {(await client.line())["id"] for _ in range(IN_FLIGHT_LIMIT)}

    assert (refused["id"], refused["error"]["code"]) == (IN_FLIGHT_LIMIT, ErrorCode.REFUSED)
    assert refused["error"]["data"]["retryable"] is True
    assert quick["id"] == 99
    assert served_ids == set(range(IN_FLIGHT_LIMIT))


async def test_a_client_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept for a stalled reader: after the deadline its connection ends."""
    monkeypatch.setattr(channel, "SEND_TIMEOUT", 0.05)
    async with served(FakeSteward()) as path, dialled(path) as client:
        request = b'{"jsonrpc":"2.0","id":1,"method":"ready"}\n'
        with pytest.raises(anyio.BrokenResourceError), anyio.fail_after(10):
            await client.stream.send(request * 100_000)


async def test_stop_is_acknowledged_although_it_ends_the_server() -> None:
    """The client of `stop` hears that it began, then sees the connection end."""
    steward = FakeSteward()
    listening = anyio.Event()
    with short_directory() as folder:

        async def serve() -> None:
            with anyio.CancelScope() as scope:
                steward.on_stop = scope.cancel
                listener = listen(folder / "control.sock")
                listening.set()
                await ControlServer(steward).serve(listener)

        async with anyio.create_task_group() as group:
            group.start_soon(serve)
            await listening.wait()
            async with dialled(folder / "control.sock") as client:
                await client.ask(1, "stop")
                assert await client.result() == {"accepted": True}
                assert await client.is_over()


async def test_connections_end_cleanly_with_the_server() -> None:
    """When the server is cancelled, watchers see the end between two messages."""
    steward = FakeSteward()
    async with AsyncExitStack() as stack:
        async with served(steward) as path:
            watchers = [await stack.enter_async_context(dialled(path)) for _ in range(5)]
            for watcher in watchers:
                await watcher.ask(1, "watch")
                await watcher.line()

        assert [await watcher.is_over() for watcher in watchers] == [True] * 5


async def test_running_out_of_descriptors_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free descriptor accepting pauses; when there is one, who waited is served."""
    monkeypatch.setattr(control, "ACCEPT_PAUSE", 0.01)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with served(FakeSteward()) as path:
        with socket.socket(socket.AF_UNIX) as raw:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raw.fileno() + 1, limits[1]))
            try:
                raw.settimeout(10)
                raw.connect(str(path))
                for _ in range(20):
                    await anyio.lowlevel.checkpoint()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            raw.sendall(b'{"jsonrpc":"2.0","id":1,"method":"ready"}\n')
            answer = await anyio.to_thread.run_sync(raw.recv, 65536)

    assert json.loads(answer)["result"]["ready"] is True


async def test_a_thousand_watchers_are_served_and_ready_stays_quick() -> None:
    """With 1,000 watchers connected each gets the change, and `ready` takes less than 1 ms (median)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    steward = FakeSteward(Board(LOADING))
    try:
        async with served(steward) as path, AsyncExitStack() as stack:
            watchers = [await stack.enter_async_context(dialled(path)) for _ in range(1000)]
            for watcher in watchers:
                await watcher.ask(1, "watch")
                await watcher.line()
            client = await stack.enter_async_context(dialled(path))
            latencies = []
            for request_id in range(200):
                start = time.perf_counter()
                await client.ask(request_id, "ready")
                await client.line()
                latencies.append(time.perf_counter() - start)
            steward.board.publish(READY)
            pushed = [(await watcher.line())["params"]["readiness"]["ready"] for watcher in watchers]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert all(pushed)
    assert statistics.median(latencies) < 0.001
