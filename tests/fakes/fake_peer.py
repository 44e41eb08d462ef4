"""The worker's end of a link, moved by the test: in memory, so that it works in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import ByteStream

from stoker.daemon.link import FROM_WORKER, WorkerLink
from stoker.ipc.channel import Channel
from stoker.ipc.errors import ErrorCode, ErrorData
from stoker.ipc.framing import ErrorResponse, Notification, Request, Response
from stoker.ipc.messages import (
    PROTOCOL_VERSION,
    Body,
    Cancel,
    Delta,
    Finished,
    Generate,
    Hello,
    Id,
    Load,
    Loaded,
    PrefixReport,
    Progress,
    Result,
    Stage,
    Step,
    TextPrompt,
    Usage,
    WarmedLater,
)
from tests.fakes.dialects import WORKER
from tests.fakes.memory_stream import memory_pair

GENERATE = Generate(prompt=TextPrompt(text="once upon a time"), max_tokens=8)
USAGE = Usage(prompt_tokens=9, completion_tokens=3, cached_tokens=7)
FINISHED = Finished(reason="stop", usage=USAGE)
LOAD = Load(model="/models/tiny", cache_dir="/nowhere")
LOADED = Loaded(
    model="tiny",
    context_tokens=1,
    vocabulary=1,
    kv_bytes_per_token=1,
    memory_bytes=1,
    seconds=1.0,
    prefix_reuse="trimmable",
)

PIECES = 4096
"""Room in the pipe, so that neither end waits for the other in a short story."""

DEADLINE = 20.0
"""Seconds after which a test that waits for the daemon fails."""


class FakePeer:
    """Says what it is told, and shows what the daemon said."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.channel = Channel(stream, WORKER)

    async def hello(self, protocol: int = PROTOCOL_VERSION) -> None:
        await self.channel.send(Request(0, Hello(protocol=protocol, pid=1, stoker="fake", python="fake")))

    async def heard(self) -> object:
        """The next frame from the daemon."""
        with anyio.fail_after(DEADLINE):
            return await self.channel.receive()

    async def asked(self) -> tuple[Id, Body]:
        """The next frame, which must be a request."""
        frame = await self.heard()
        assert isinstance(frame, Request)
        return frame.id, frame.body

    async def asked_to_generate(self) -> tuple[Id, Generate]:
        request_id, body = await self.asked()
        assert isinstance(body, Generate)
        return request_id, body

    async def cancelled(self) -> Id:
        """The target of the next frame, which must be a cancel."""
        frame = await self.heard()
        assert isinstance(frame, Notification)
        assert isinstance(frame.body, Cancel)
        return frame.body.target

    async def progress(self, target: Id, done: int, total: int, cached: int = 0, stage: Stage = "prefill") -> None:
        body = Progress(target=target, stage=stage, done=done, total=total, cached=cached)
        await self.channel.send(Notification(body))

    async def say(self, *deltas: Delta) -> None:
        """One decoding step."""
        await self.channel.send(Notification(Step(deltas=deltas)))

    async def tokens(self, target: Id, *tokens: int) -> None:
        """One decoding step for each token, with the number as its text."""
        for token in tokens:
            await self.say(Delta(target=target, tokens=(token,), text=f"{token} "))

    async def warmed_later(self, *prefixes: PrefixReport) -> None:
        await self.channel.send(Notification(WarmedLater(prefixes=prefixes)))

    async def answer(self, target: Id, result: Result = FINISHED) -> None:
        await self.channel.send(Response(target, result))

    async def refuse(self, target: Id, code: ErrorCode, message: str = "no", **data: object) -> None:
        await self.channel.send(ErrorResponse(target, code, message, ErrorData(**data)))  # type: ignore[arg-type]

    async def die(self) -> None:
        """Close the connection."""
        await self.channel.aclose()


@asynccontextmanager
async def joined(
    generation: int = 1, on_warmed: Callable[[WarmedLater], None] = lambda _: None
) -> AsyncIterator[tuple[WorkerLink, FakePeer]]:
    """A link and its other end, before the handshake."""
    ours, theirs = memory_pair(PIECES)
    async with ours, theirs:
        yield WorkerLink(Channel(ours, FROM_WORKER), generation, on_warmed), FakePeer(theirs)


@asynccontextmanager
async def linked(
    generation: int = 1, on_warmed: Callable[[WarmedLater], None] = lambda _: None
) -> AsyncIterator[tuple[WorkerLink, FakePeer]]:
    """A link that is running, and its other end."""
    async with joined(generation, on_warmed) as (link, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(link.run)
        yield link, peer
        tasks.cancel_scope.cancel()


async def settled() -> None:
    """Let everything that is under way arrive."""
    await anyio.wait_all_tasks_blocked()
