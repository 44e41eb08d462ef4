"""A stream's way from the outputs of a generation to the client: one loop, for which each API brings an encoder.

Until a worker has admitted the request, a refusal can have an HTTP status of its own. A client that waits for longer
than `PATIENCE` is shown life instead, and from then on a refusal is the last event of its stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

from aiohttp import web

from ..dispatch import PrefillProgress, Waiting
from .errors import ApiError
from .sse import EventStream, open_stream

PATIENCE = 2.0
"""Seconds in which nothing is sent to a client whose request no worker has admitted."""

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Encoder(Protocol[T_contra]):
    """Makes the events of one answer in one API's terms. Pure: bytes out, no I/O."""

    @property
    def complete(self) -> bool:
        """Whether the answer has been told to its end."""

    def output(self, output: T_contra) -> bytes:
        """The events that an output gives; empty for none.

        Raises:
            ApiError: The answer can't end well.
        """

    def alive(self, note: str) -> bytes:
        """What shows a waiting client that the stream lives; `note` is one line for people."""

    def failure(self, error: ApiError) -> bytes:
        """The event that tells a failure."""


async def stream(request: web.Request, outputs: AsyncIterator[T], encoder: Encoder[T]) -> web.StreamResponse:
    """Answer a request with the events of `outputs`.

    Raises:
        ApiError, Unavailable, RequestFailed: It was refused, or failed in the middle; `app` tells the client.
        ConnectionError: The client left.
    """
    place = _Place()
    admission = asyncio.ensure_future(_admitted(outputs, place))
    try:
        await asyncio.wait({admission}, timeout=PATIENCE)
        if admission.done():
            admission.result()  # a refusal, with a status of its own
        events = await open_stream(request, encoder.alive, encoder.failure, place.headers)
        async with events.kept_alive(lambda: place.note):
            await _tell(events, encoder, await admission, place)
            async for output in outputs:
                await _tell(events, encoder, output, place)
        if not encoder.complete:
            raise unfinished()
        return events.response
    finally:
        if not admission.done():
            admission.cancel()
            await asyncio.wait({admission})


def unfinished() -> ApiError:
    """The outputs ended without a result."""
    return ApiError(500, "The generation ended without a result.", code="generation_failed")


class _Place:
    """Where a request is that has no answer yet, in words."""

    def __init__(self) -> None:
        self.note = "waiting"
        self.headers: dict[str, str] = {}

    def look(self, output: object) -> None:
        """Learn from an output."""
        match output:
            case Waiting(phase=phase, ahead=ahead):
                self.note = f"{phase}, {ahead} ahead"
                self.headers = {"X-Stoker-Phase": phase, "X-Stoker-Ahead": str(ahead)}
            case PrefillProgress(done=done, total=total):
                self.note = f"prefill {done}/{total}"


async def _admitted(outputs: AsyncIterator[T], place: _Place) -> T:
    """The first output that comes from a worker."""
    async for output in outputs:
        if not isinstance(output, Waiting):
            return output
        place.look(output)
    raise unfinished()


async def _tell(events: EventStream, encoder: Encoder[T], output: T, place: _Place) -> None:
    if data := encoder.output(output):
        await events.send(data)
    else:
        place.look(output)
