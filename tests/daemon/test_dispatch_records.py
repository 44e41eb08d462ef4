"""What dispatch writes down of requests: real links, scripted workers, virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.ipc.errors import ErrorCode
from tests.fakes.dispatch_stage import settled, stage
from tests.fakes.fake_peer import linked

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


async def test_course_of_a_request_is_seen_and_kept() -> None:
    """A row shows waiting, prefill and decoding as they come; the record has the worker's own counts."""
    async with stage() as here, linked() as (link, peer):
        records = here.dispatch.records
        await here.client()
        await settled()
        assert [row.stage for row in records.live] == ["waiting"]

        await here.serve(link)
        target, _ = await peer.asked_to_generate()
        await settled()
        for done in (7, 8):
            await peer.progress(target, done, 9, cached=7)
            await settled()
        (row,) = records.live
        assert (row.stage, row.done, row.total, row.cached_tokens, row.generation) == (
            "prefill",
            8,
            9,
            7,
            link.generation,
        )

        await peer.tokens(target, 1, 2)
        await settled()
        assert (row.stage, row.completion_tokens) == ("decoding", 2)

        await peer.answer(target)
        await settled()
        (record,) = records.ended
        assert records.live == ()
        assert (record.outcome, record.generation, record.resumed) == ("served", link.generation, 0)
        assert record.completion_tokens >= 2


async def test_client_that_leaves_is_cancelled() -> None:
    """A request whose client left ends as cancelled, with what it had got."""
    async with stage() as here, linked() as (link, peer):
        await here.serve(link)
        client = await here.client()
        target, _ = await peer.asked_to_generate()
        await peer.tokens(target, 1)
        await settled()
        client.leave.cancel()
        await peer.cancelled()
        await settled()

        (record,) = here.dispatch.records.ended
        assert (record.outcome, record.completion_tokens, record.cause) == ("cancelled", 1, None)


async def test_refusal_is_kept_without_its_words() -> None:
    """Of a refused prompt only the kind of refusal is kept: the worker's sentence may quote the prompt."""
    async with stage() as here, linked() as (link, peer):
        await here.serve(link)
        await here.client()
        target, _ = await peer.asked_to_generate()
        await peer.refuse(target, ErrorCode.INVALID_PROMPT, "no role in 'my diary'")
        await settled()

        (record,) = here.dispatch.records.ended
        assert (record.outcome, record.cause) == ("failed", "invalid_prompt")
