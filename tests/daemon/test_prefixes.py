"""What the control socket may ask about prefixes, with a scripted worker at the other end, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import pytest

from stoker.daemon.asking import ANSWER_TIMEOUT
from stoker.daemon.prefixes import LEARNING_OFF, KnownPrefixes, latest, reuse_note
from stoker.daemon.readiness import Board
from stoker.daemon.steward import Refusal
from stoker.ipc.control import CALL_TIMEOUT
from stoker.ipc.control_messages import Clearance, Counted, PrefixListing, PrefixStatus, StoredListing, Verification
from stoker.ipc.errors import ErrorCode
from stoker.ipc.framing import LIMIT, ErrorResponse, encode
from stoker.ipc.messages import (
    Body,
    CacheClear,
    CacheFigures,
    CacheVerify,
    Cleared,
    Figures,
    Forget,
    Loaded,
    Noted,
    Pin,
    Prefixes,
    PrefixList,
    PrefixReport,
    Proven,
    ProvenPrefix,
    Result,
    StoredList,
)
from tests.fakes.fake_peer import FakePeer, linked
from tests.fakes.fake_steward import LISTING, LOADING, READY

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


@asynccontextmanager
async def known(*, learning: bool = True) -> AsyncIterator[tuple[KnownPrefixes, FakePeer]]:
    """What is to be tested, and the worker that it asks."""
    async with linked() as (link, peer):
        yield KnownPrefixes(Board(READY), lambda: link, learning=learning), peer


async def asked(question: Awaitable[object], peer: FakePeer, result: Result) -> tuple[object, Body]:
    """The answer to a question that the worker answers so, and what the worker was asked."""
    answers: list[object] = []
    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            answers.append(await question)

        tasks.start_soon(ask)
        request_id, body = await peer.asked()
        await peer.answer(request_id, result)
    return answers[0], body


async def refused(question: Awaitable[object], worker: Callable[[], Awaitable[object]]) -> Refusal:
    """How a question is refused, while the worker does this."""
    refusals: list[Refusal] = []
    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            with pytest.raises(Refusal) as caught:
                await question
            refusals.append(caught.value)

        tasks.start_soon(ask)
        await worker()
    return refusals[0]


QUESTIONS: dict[str, Callable[[KnownPrefixes], Awaitable[object]]] = {
    "list": lambda prefixes: prefixes.listing(),
    "pin": lambda prefixes: prefixes.pin("learned-1", pinned=True),
    "forget": lambda prefixes: prefixes.forget("learned-1"),
    "clear": lambda prefixes: prefixes.forget(None),
    "stored": lambda prefixes: prefixes.stored(),
}
each_question = pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)


async def test_the_workers_list_is_passed_on() -> None:
    """The listing is the worker's, with its notes."""
    listed = PrefixList(prefixes=LISTING.prefixes, notes=("put aside",))
    async with known() as (prefixes, peer):
        answer, body = await asked(prefixes.listing(), peer, listed)

    assert (answer, body) == (PrefixListing(prefixes=LISTING.prefixes, notes=("put aside",)), Prefixes())


async def test_a_listing_says_that_learning_is_off() -> None:
    """Where nothing is learned because the settings say so, a note tells."""
    async with known(learning=False) as (prefixes, peer):
        answer, _ = await asked(prefixes.listing(), peer, PrefixList(prefixes=()))

    assert answer == PrefixListing(prefixes=(), notes=(LEARNING_OFF,))


@pytest.mark.parametrize("pinned", [True, False])
async def test_pin_reaches_the_worker(pinned: bool) -> None:
    """A prefix is pinned, or no longer, by its name."""
    async with known() as (prefixes, peer):
        answer, body = await asked(prefixes.pin("learned-1", pinned=pinned), peer, Noted(count=1))

    assert (answer, body) == (Counted(count=1), Pin(name="learned-1", pinned=pinned))


@pytest.mark.parametrize(("name", "count"), [("learned-1", 1), (None, 7), (None, 0)])
async def test_forget_reaches_the_worker(name: str | None, count: int) -> None:
    """One is forgotten by its name; all without one, and then it is no error that there are none."""
    async with known() as (prefixes, peer):
        answer, body = await asked(prefixes.forget(name), peer, Noted(count=count))

    assert (answer, body) == (Counted(count=count), Forget(name=name))


@pytest.mark.parametrize("order", ["pin", "forget"])
async def test_a_name_that_nothing_has_is_refused(order: str) -> None:
    """The refusal names it, and says how to see those there are."""
    async with known() as (prefixes, peer):

        async def find_none() -> None:
            await peer.answer((await peer.asked())[0], Noted(count=0))

        refusal = await refused(QUESTIONS[order](prefixes), find_none)

    assert (refusal.code, refusal.message) == (ErrorCode.REFUSED, "no learned prefix has the name 'learned-1'")
    assert "stoker warm list" in str(refusal.remedy)


async def test_a_refusal_of_a_huge_name_fits_a_frame() -> None:
    """A name nearly as long as a frame, which grows when it is quoted, is not repeated in whole."""
    name = "\U000e0001" * (LIMIT // 4 - 100)
    async with known() as (prefixes, peer):

        async def find_none() -> None:
            await peer.answer((await peer.asked())[0], Noted(count=0))

        refusal = await refused(prefixes.forget(name), find_none)

    assert len(encode(ErrorResponse(1, refusal.code, refusal.message))) < 1000


@each_question
async def test_without_a_ready_worker(question: Callable[[KnownPrefixes], Awaitable[object]]) -> None:
    """While no worker is ready nothing is asked: the refusal says what is instead, and how to wait."""
    with pytest.raises(Refusal, match=r"no worker is ready \(loading\)") as caught:
        await question(KnownPrefixes(Board(LOADING), lambda: None))

    assert caught.value.code is ErrorCode.NOT_READY
    assert "stoker ready --wait" in str(caught.value.remedy)


@each_question
async def test_a_worker_that_dies_over_it(question: Callable[[KnownPrefixes], Awaitable[object]]) -> None:
    """A worker that goes away before it answers is one that isn't ready."""
    async with known() as (prefixes, peer):

        async def die() -> None:
            await peer.asked()
            await peer.die()

        refusal = await refused(question(prefixes), die)

    assert (refusal.code, refusal.message) == (ErrorCode.NOT_READY, "the worker closed its connection")


@each_question
async def test_a_worker_that_is_too_busy(question: Callable[[KnownPrefixes], Awaitable[object]]) -> None:
    """A worker that doesn't answer is waited for so long and no longer, and shorter than the client waits."""
    async with known() as (prefixes, peer):
        start = anyio.current_time()
        refusal = await refused(question(prefixes), peer.asked)
        waited = anyio.current_time() - start

    assert waited == ANSWER_TIMEOUT < CALL_TIMEOUT
    assert (refusal.code, refusal.remedy) == (ErrorCode.NOT_READY, "try again")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (ErrorCode.UNSUPPORTED, ErrorCode.UNSUPPORTED),
        (ErrorCode.METHOD_NOT_FOUND, ErrorCode.UNSUPPORTED),
        (ErrorCode.INTERNAL_ERROR, ErrorCode.REFUSED),
    ],
)
async def test_the_workers_error_is_told(said: ErrorCode, code: ErrorCode) -> None:
    """What the worker refuses is refused in its words; where it can't learn, the code says so."""
    async with known() as (prefixes, peer):

        async def refuse() -> None:
            await peer.refuse((await peer.asked())[0], said, "nothing is learned here", remedy="set learned_prefixes")

        refusal = await refused(prefixes.forget(None), refuse)

    assert (refusal.code, refusal.message) == (code, "nothing is learned here")
    assert refusal.remedy == "set learned_prefixes"


async def test_what_is_on_disk_is_asked_of_the_worker() -> None:
    """Listing, verifying and clearing are the worker's answers in the control socket's form."""
    stored = StoredList(folder="/c", prefixes=(), bytes=1, budget_bytes=2)
    proven = Proven(prefixes=(ProvenPrefix(key="1a", name="agent", bytes=7, fault="torn"),))
    async with known() as (prefixes, peer):
        listing, _ = await asked(prefixes.stored(), peer, stored)
        verified, verify = await asked(prefixes.verify("1a"), peer, proven)
        nothing, _ = await asked(prefixes.verify("2b"), peer, Proven(prefixes=()))
        gone, clear = await asked(prefixes.clear("agent", foreign=True), peer, Cleared(count=1, bytes=7))
        none, _ = await asked(prefixes.clear(None, foreign=False), peer, Cleared(count=0, bytes=0))

    assert listing == StoredListing(folder="/c", prefixes=(), bytes=1, budget_bytes=2)
    assert (verified, verify) == (Verification(prefixes=proven.prefixes), CacheVerify(key="1a"))
    assert (gone, clear) == (Clearance(count=1, bytes=7), CacheClear(name="agent", foreign=True))
    assert (nothing, none) == (Verification(prefixes=()), Clearance(count=0, bytes=0))


async def test_clearing_an_unknown_name_is_refused() -> None:
    """The refusal repeats the name, and says how to see those there are."""
    async with known() as (prefixes, peer):
        refusal = await refused(
            prefixes.clear("agent", foreign=False), lambda: answered(peer, Cleared(count=0, bytes=0))
        )

    assert "'agent'" in refusal.message
    assert "stoker cache list" in str(refusal.remedy)


async def answered(peer: FakePeer, result: Result) -> None:
    request_id, _ = await peer.asked()
    await peer.answer(request_id, result)


def test_reports_of_idle_time_take_the_place_of_older_ones() -> None:
    """`status` shows of each prefix what is so now: what the background finished, and what it warmed besides."""
    cache = CacheFigures(entries=0, pinned=0, bytes=0, limit_bytes=0, hits=0, misses=0, evictions=0)
    since = tuple(
        PrefixReport(name=name, tokens=9, tokens_warm=9, source="prefilled", seconds=1.0) for name in ("b", "c")
    )
    figures = Figures(memory_bytes=0, cache=cache, running=0, prefixes=since)
    before = tuple(
        PrefixStatus(name=name, tokens=9, tokens_warm=1, source="none", seconds=0.0) for name in ("a", "b")
    )

    assert [(one.name, one.tokens_warm) for one in latest(before, figures)] == [("a", 1), ("b", 9), ("c", 9)]
    assert latest(before, None) == before


def test_a_model_whose_kv_can_not_be_cut_is_told_of() -> None:
    """Where prefixes are reused only whole, a note says so and what helps; else there is none."""

    def loaded(reuse: Literal["trimmable", "exact"]) -> Loaded:
        return Loaded(
            model="m",
            context_tokens=9,
            vocabulary=9,
            kv_bytes_per_token=9,
            memory_bytes=9,
            seconds=1.0,
            prefix_reuse=reuse,
        )

    assert "[[warmup]]" in reuse_note(loaded("exact"))[0]
    assert reuse_note(loaded("trimmable")) == reuse_note(None) == ()
