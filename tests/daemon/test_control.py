from __future__ import annotations

import json

import msgspec
import pytest

from stoker.daemon.readiness import Board
from stoker.daemon.steward import Refusal
from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import WarmPrefix
from tests.fakes.control_client import dialled
from tests.fakes.fake_steward import FAILED, LISTING, LOADING, PREFIX, READY, FakeSteward, changed, served

pytestmark = pytest.mark.anyio


async def test_ready_is_answered_with_the_current_snapshot() -> None:
    """`ready` answers what the board says, under the id of the request."""
    async with served(FakeSteward()) as path, dialled(path) as client:
        await client.ask(7, "ready")
        answer = await client.line()

    assert answer["id"] == 7
    assert {"ready": True, "phase": "ready", "warm": True, "generation": 1}.items() <= answer["result"].items()
    assert answer["result"]["warmup"]["prefixes"][0]["tokens"] == PREFIX.tokens


async def test_a_slow_answer_does_not_hold_up_a_quick_one() -> None:
    """Requests of one connection are answered in the order in which they are done."""
    steward = FakeSteward(Board(LOADING))
    async with served(steward) as path, dialled(path) as client:
        await client.ask(1, "wait_ready", timeout=60)
        await client.ask(2, "version")
        await client.ask(3, "status")
        early = [(await client.line())["id"] for _ in range(2)]
        steward.board.publish(READY)
        late = await client.line()

    assert early == [2, 3]
    assert (late["id"], late["result"]["ready"]) == (1, True)


async def test_wait_ready_ends_with_failed() -> None:
    """Who waits for ready is told of a failure at once, not after the timeout."""
    steward = FakeSteward(Board(LOADING))
    async with served(steward) as path, dialled(path) as client:
        await client.ask(1, "wait_ready", timeout=60)
        steward.board.publish(FAILED)

        assert (await client.result())["phase"] == "failed"


@pytest.mark.parametrize("seconds", [0, -5, 0.01])
async def test_wait_ready_ends_with_its_timeout(seconds: float) -> None:
    """After the timeout the answer is the snapshot, not an error."""
    async with served(FakeSteward(Board(LOADING))) as path, dialled(path) as client:
        await client.ask(1, "wait_ready", timeout=seconds)

        assert (await client.result())["phase"] == "loading"


async def test_watch_pushes_every_transition() -> None:
    """After `watch` come the snapshot, then all later ones in order, however fast they are."""
    steward = FakeSteward(Board(LOADING))
    async with served(steward) as path, dialled(path) as client:
        await client.ask(1, "watch")
        first = await client.result()
        for generation in range(2, 50):
            steward.board.publish(changed(LOADING, generation=generation))
        pushed = [await client.line() for _ in range(2, 50)]

    assert first["generation"] == 1
    assert [push["params"]["readiness"]["generation"] for push in pushed] == list(range(2, 50))
    assert {push["method"] for push in pushed} == {"changed"}


async def test_orders_reach_the_steward() -> None:
    """`restart`, `rewarm` and `stop` are carried out with their parameters."""
    steward = FakeSteward()
    async with served(steward) as path, dialled(path) as client:
        await client.ask(1, "restart", cold=True)
        await client.line()
        await client.ask(2, "rewarm", prompts=[{"name": "agent", "system": "Be brief."}])
        rewarmed = await client.result()
        await client.ask(3, "stop")
        stopped = await client.result()

    assert steward.asked == [("restart", True), (WarmPrefix(name="agent", system="Be brief."),), "stop"]
    assert rewarmed["outcome"] == "succeeded"
    assert stopped == {"accepted": True}


async def test_orders_about_prefixes_reach_the_steward() -> None:
    """The listing comes with every field; pinning and forgetting are carried out by name, or for all."""
    steward = FakeSteward(count=2)
    async with served(steward) as path, dialled(path) as client:
        await client.ask(1, "warm_list")
        listed = await client.result()
        await client.ask(2, "warm_pin", name="learned-1", pinned=False)
        await client.ask(3, "warm_forget", name="learned-1")
        await client.ask(4, "warm_forget")
        counted = [await client.result() for _ in range(3)]

    assert steward.asked == ["warm_list", ("pin", "learned-1", False), ("forget", "learned-1"), ("forget", None)]
    assert listed == {"prefixes": [msgspec.structs.asdict(prefix) for prefix in LISTING.prefixes], "notes": []}
    assert counted == [{"count": 2}] * 3


async def test_a_pin_must_say_what() -> None:
    """Without a name there is nothing to pin: invalid params, and nothing is asked of the steward."""
    steward = FakeSteward()
    async with served(steward) as path, dialled(path) as client:
        await client.ask(1, "warm_pin")
        error = (await client.line())["error"]

    assert (error["code"], steward.asked) == (ErrorCode.INVALID_PARAMS, [])


async def test_a_refusal_is_told_with_its_remedy() -> None:
    """What the steward refuses becomes an error with code, reason and remedy."""
    steward = FakeSteward(fault=Refusal("no worker is ready", "wait for ready", ErrorCode.NOT_READY))
    async with served(steward) as path, dialled(path) as client:
        await client.ask(1, "rewarm")
        error = (await client.line())["error"]

    assert (error["code"], error["message"]) == (ErrorCode.NOT_READY, "no worker is ready")
    assert error["data"]["remedy"] == "wait for ready"


async def test_a_fault_of_one_request_is_that_requests_only() -> None:
    """An unexpected exception is an internal error for the asker, without its text, and the service goes on."""
    steward = FakeSteward(fault=RuntimeError("secret detail"))
    async with served(steward) as path, dialled(path) as client:
        await client.ask(1, "status")
        error = (await client.line())["error"]
        await client.ask(2, "ready")
        after = await client.line()

    assert error["code"] == ErrorCode.INTERNAL_ERROR
    assert "secret" not in json.dumps(error)
    assert after["id"] == 2


@pytest.mark.parametrize(
    ("line", "code", "request_id"),
    [
        (b"what?", ErrorCode.PARSE_ERROR, None),
        (b"\xff\xfe", ErrorCode.PARSE_ERROR, None),
        (b"[]", ErrorCode.INVALID_REQUEST, None),
        (b'{"jsonrpc":"1.0","id":4,"method":"ready"}', ErrorCode.INVALID_REQUEST, 4),
        (b'{"jsonrpc":"2.0","id":5,"method":"explode"}', ErrorCode.METHOD_NOT_FOUND, 5),
        (b'{"jsonrpc":"2.0","id":6,"method":"restart","params":{"cold":3}}', ErrorCode.INVALID_PARAMS, 6),
    ],
)
async def test_a_bad_line_is_answered_and_the_next_one_served(
    line: bytes, code: ErrorCode, request_id: int | None
) -> None:
    """Each kind of bad line gets its JSON-RPC error, and does no harm to the connection."""
    async with served(FakeSteward()) as path, dialled(path) as client:
        await client.stream.send(line + b"\n")
        refusal = await client.line()
        await client.ask(9, "ready")
        after = await client.line()

    assert (refusal["error"]["code"], refusal["id"]) == (code, request_id)
    assert after["result"]["ready"] is True


async def test_an_answer_instead_of_a_request_ends_the_connection() -> None:
    """A client that sends responses is told so and left: two servers must not talk to each other for ever."""
    async with served(FakeSteward()) as path, dialled(path) as client:
        await client.stream.send(b'{"jsonrpc":"2.0","id":1,"result":{}}\n')

        assert (await client.line())["error"]["code"] == ErrorCode.INVALID_REQUEST
        assert await client.is_over()
