"""`stoker run` with a fake worker: what it knows of prefixes, over the real control socket."""

from __future__ import annotations

import json

import pytest

from stoker.ipc.control import ControlError
from stoker.ipc.errors import ErrorCode
from tests.fakes.fake_scenario import COMMAND
from tests.fakes.running_daemon import RunningDaemon

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def environ(scenario: object, **more: str) -> dict[str, str]:
    """For a daemon whose worker does this."""
    return {"STOKER_WORKER_COMMAND": ",".join(COMMAND), "FAKE_WORKER": json.dumps(scenario), **more}


async def test_prefixes_are_listed_pinned_and_forgotten() -> None:
    """Orders about learned prefixes reach the ready worker, and show in its next listing."""
    scenario = {"known": {"learned": ["learned-1", "learned-2", "learned-3"]}}
    async with RunningDaemon("embedded", environ(scenario)) as daemon:
        await daemon.ready()
        async with daemon.control() as client:
            counts = [await client.warm_pin("learned-2"), await client.warm_forget("learned-1")]
            listed = (await client.warm_list()).prefixes
            with pytest.raises(ControlError, match="no learned prefix has the name 'learned-1'"):
                await client.warm_forget("learned-1")
            cleared = [await client.warm_forget(), await client.warm_forget()]

    assert counts == [1, 1]
    assert [(one.name, one.pinned) for one in listed if one.origin == "learned"] == [
        ("learned-2", True),
        ("learned-3", False),
    ]
    assert "system" in [one.name for one in listed if one.origin == "configured"]
    assert cleared == [2, 0]


async def test_learning_that_is_switched_off_is_told() -> None:
    """With `learned_prefixes = 0` the listing says why nothing is learned."""
    async with RunningDaemon("embedded", environ({}, STOKER_LEARNED_PREFIXES="0")) as daemon:
        await daemon.ready()
        async with daemon.control() as client:
            listing = await client.warm_list()

    assert "learned_prefixes is 0" in listing.notes[0]


async def test_a_worker_that_loads_knows_nothing_yet() -> None:
    """Before a worker is ready the refusal says what it is busy with, and how to wait."""
    scenario = {"load": {"seconds": 3600, "steps": 36000}}
    async with RunningDaemon("embedded", environ(scenario)) as daemon, daemon.control() as client:
        with pytest.raises(ControlError, match="stoker ready --wait") as caught:
            await client.warm_list()

    assert caught.value.code == ErrorCode.NOT_READY
