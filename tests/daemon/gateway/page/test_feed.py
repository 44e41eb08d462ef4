"""What viewers are told, how often it is made, and what becomes of one that doesn't read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from stoker.daemon.gateway.errors import ApiError
from stoker.daemon.gateway.page import feed as module
from stoker.daemon.gateway.page.feed import MAILBOX, VIEWERS_LIMIT, Feed, Viewer
from stoker.ipc.control_messages import StatusReport
from tests.fakes.page_stage import PREFIXES, Shown, afternoon

pytestmark = pytest.mark.anyio

DEADLINE = 10.0


@pytest.fixture
def backend() -> Shown:
    return Shown()


@pytest.fixture
async def feed(backend: Shown) -> AsyncIterator[Feed]:
    feed = Feed(backend, "a-token")
    yield feed
    await feed.close()


def nothing() -> None:
    """What becomes of a viewer that is dropped, where none is."""


def told(data: bytes) -> list[tuple[str, Any]]:
    """Events by name."""
    events = [event.split("\n") for event in data.decode().split("\n\n") if event]
    return [(name.removeprefix("event: "), json.loads(text.removeprefix("data: "))) for name, text in events]


async def next_of(viewer: Viewer, kind: str) -> Any:
    """The next event of a kind."""
    with anyio.fail_after(DEADLINE):
        async for event in viewer.events():
            ((name, data),) = told(event)
            if name == kind:
                return data
    raise AssertionError(f"the stream ended without {kind}")


async def test_viewer_is_told_all_at_first() -> None:
    """The first events have everything that is: history, log, phases with causes, and the token."""
    feed = Feed(afternoon(), "a-token")
    viewer, first = await feed.join(nothing)
    events = dict(told(first))
    sample = await next_of(viewer, "sample")
    await feed.close()

    hello, state = events["hello"], events["state"]
    assert (hello["token"], hello["model"]) == ("a-token", "Qwen3-30B-A3B-Instruct-4bit")
    assert len(hello["decoded"]) == len(hello["prefilled"]) == 599
    assert sum(hello["decoded"]) > 0
    assert {record["outcome"] for record in hello["ended"]} == {"served", "failed", "cancelled"}
    assert [span["cause"] for span in state["spans"]].count("crashed with SIGABRT") == 1
    assert state["headline"]["title"] == "Ready and warm"
    assert [row["stage"] for row in sample["live"]] == ["decoding", "decoding", "prefill", "waiting"]
    assert [prefix["name"] for prefix in sample["prefixes"]] == [prefix.name for prefix in PREFIXES]


async def test_transition_is_told_at_once(feed: Feed, backend: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """A viewer hears of a transition when it happens, not with the next sample."""
    monkeypatch.setattr(module, "SAMPLE_INTERVAL", 3600.0)
    viewer, _ = await feed.join(nothing)
    await next_of(viewer, "sample")
    backend.publish(ready=False, phase="backoff", warm=False, reason="crashed with SIGSEGV")

    state = await next_of(viewer, "state")
    assert state["readiness"]["phase"] == "backoff"
    assert state["headline"]["detail"].startswith("Crashed with SIGSEGV.")


async def test_new_records_are_told_once(feed: Feed, backend: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample has the requests that ended since the one before."""
    monkeypatch.setattr(module, "SAMPLE_INTERVAL", 0.01)
    records = backend.insight.records
    records.close(records.open(), "served")
    viewer, first = await feed.join(nothing)
    records.close(records.open(), "failed")

    samples = [await next_of(viewer, "sample") for _ in range(3)]
    assert [record["number"] for record in dict(told(first))["hello"]["ended"]] == [1]
    assert [record["number"] for sample in samples for record in sample["ended"]] == [2]


async def test_sample_is_made_once_for_all(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred viewers get the very same bytes, made once."""
    made: list[bytes] = []
    encode = module.encoded

    def counting(name: str, document: Any) -> bytes:
        event = encode(name, document)
        if name == "sample":
            made.append(event)
        return event

    monkeypatch.setattr(module, "encoded", counting)
    viewers = [(await feed.join(nothing))[0] for _ in range(100)]
    with anyio.fail_after(DEADLINE):
        got = [await anext(viewer.events()) for viewer in viewers]

    assert len(made) == 1
    assert all(event is made[0] for event in got)


async def test_nothing_runs_while_nobody_watches(feed: Feed, backend: Shown) -> None:
    """With the first viewer the sampling begins, with the last one it ends."""
    assert not feed._tasks
    one, _ = await feed.join(nothing)
    two, _ = await feed.join(nothing)
    feed.leave(one)
    assert len(feed._tasks) == 2
    feed.leave(two)

    assert not feed._tasks
    assert feed.viewers == 0


async def test_viewer_that_does_not_read_is_dropped() -> None:
    """Events wait for a slow viewer up to a bound; over it, the viewer is cut off once, and its mailbox freed."""
    cuts: list[int] = []
    viewer = Viewer(lambda: cuts.append(1))
    for _ in range(MAILBOX):
        viewer.put(b"event")
    before = viewer.dropped
    viewer.put(b"one too many")
    for _ in range(2 * MAILBOX):
        viewer.put(b"and more")

    assert (before, viewer.dropped, cuts) == (False, True, [1])
    assert [event async for event in viewer.events()] == []


async def test_viewers_are_bounded(feed: Feed) -> None:
    """One page too many is refused with a sentence; another may come when one has left."""
    viewers = [(await feed.join(nothing))[0] for _ in range(VIEWERS_LIMIT)]
    with pytest.raises(ApiError, match="status pages are open already") as refusal:
        await feed.join(nothing)
    feed.leave(viewers[0])

    assert refusal.value.status == 503
    assert await feed.join(nothing)


async def test_end_is_told(feed: Feed) -> None:
    """When the daemon ends, viewers hear it, and their streams end."""
    viewer, _ = await feed.join(nothing)
    await feed.close()
    with anyio.fail_after(DEADLINE):
        events = [name async for event in viewer.events() for name, _ in told(event)]

    assert events[-1] == "bye"
    with pytest.raises(ApiError):
        await feed.join(nothing)


async def test_failed_sample_is_not_the_end(feed: Feed, backend: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second without figures is logged; the next one has them again."""
    monkeypatch.setattr(module, "SAMPLE_INTERVAL", 0.01)
    viewer, _ = await feed.join(nothing)
    good = backend.status
    failures = iter([RuntimeError("no figures")])

    async def failing() -> StatusReport:
        if (failure := next(failures, None)) is not None:
            raise failure
        return await good()

    monkeypatch.setattr(backend, "status", failing)
    with capture_logs() as logs:
        assert await next_of(viewer, "sample")

    assert [line["event"] for line in logs] == ["no sample for the status page"]
