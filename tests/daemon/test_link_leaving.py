"""What becomes of requests whose asker leaves, on the daemon's end of a worker's connection, in virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from stoker.daemon.link import WorkerLink
from stoker.ipc.errors import ErrorCode
from stoker.ipc.framing import Notification, Request
from stoker.ipc.messages import (
    Finished,
    Hello,
    Statistics,
)
from tests.fakes.fake_peer import FINISHED, GENERATE, USAGE, joined, linked, settled

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


async def test_leaving_early_cancels() -> None:
    """Whoever leaves before the result has the request cancelled in the worker."""
    async with linked() as (link, peer):
        async with link.ask(GENERATE) as (target, _):
            await peer.asked()

        assert await peer.cancelled() == target
        assert link.running == 0


async def test_being_cancelled_cancels() -> None:
    """A reader that is itself cancelled in the middle of its wait has the request cancelled, too."""

    async def read(link: WorkerLink) -> None:
        async with link.ask(GENERATE) as (_, mailbox):
            await mailbox.get()

    async with linked() as (link, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(read, link)
        target, _ = await peer.asked()
        tasks.cancel_scope.cancel()

        with anyio.CancelScope(shield=True):
            assert await peer.cancelled() == target
            assert link.running == 0
            await link.idle()


async def test_leaving_after_the_result_is_silent() -> None:
    """A request that was answered is not cancelled."""
    async with linked() as (link, peer):
        async with link.ask(GENERATE) as (target, mailbox):
            await peer.asked()
            await peer.answer(target)
            assert await mailbox.get() == FINISHED
        async with link.ask(Statistics()):
            assert await peer.asked() == (2, Statistics())


async def test_late_news_are_ignored() -> None:
    """What still comes for a request that was left concerns nobody, and the connection goes on."""
    async with linked() as (link, peer):
        async with link.ask(GENERATE) as (target, _):
            pass
        await peer.tokens(target, 1, 2)
        await peer.progress(target, 1, 2)
        await peer.answer(target, Finished(reason="cancelled", usage=USAGE))
        await peer.refuse(target, ErrorCode.GENERATION_FAILED)
        await settled()

        assert not link.lost


async def test_notification_and_request_have_their_frames() -> None:
    """Requests carry increasing ids from 1, cancels none."""
    async with linked() as (link, peer):
        for expected in (1, 2):
            async with link.ask(GENERATE):
                assert await peer.heard() == Request(expected, GENERATE)
            assert isinstance(await peer.heard(), Notification)


async def test_hello_is_kept_out_of_the_conversation() -> None:
    """The handshake leaves nothing open."""
    async with joined() as (link, peer):
        await peer.hello()
        assert isinstance(await link.greet(), Hello)
        assert link.running == 0
