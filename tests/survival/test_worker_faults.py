"""Workers that misbehave in every way a process can, under a daemon's supervisor and with a client that waits."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import anyio
import psutil
import pytest

from stoker.daemon.dispatch import RequestFailed
from stoker.daemon.pulse import Budgets
from stoker.ipc.messages import Delta, TextPrompt
from tests.fakes.fake_daemon import GENERATE
from tests.fakes.fake_scenario import answer
from tests.fakes.house import EAGER, House, Open

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_children")]

WHOLE = answer(GENERATE, 6)
"""What an undisturbed client gets."""


def first(*faults: dict[str, object], **plan: object) -> dict[str, object]:
    """The first generation misbehaves, later ones don't."""
    return {"1": {"faults": list(faults), **plan}, "default": {}}


# -- in the middle of an answer ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "misdeed",
    [
        {"do": "exit", "code": 0},
        {"do": "exit", "code": 70},
        {"do": "signal", "signal": int(signal.SIGKILL)},
        {"do": "signal", "signal": int(signal.SIGSEGV)},
        {"do": "signal", "signal": int(signal.SIGTERM)},
        {"do": "garbage"},
        {"do": "raw", "text": "[]\n"},
        {"do": "close"},
        {"do": "oversize"},
    ],
    ids=lambda misdeed: "-".join(str(value).strip() for value in misdeed.values()),
)
async def test_answer_goes_on_after(opened: Open, misdeed: dict[str, object]) -> None:
    """Whatever ends a worker in the middle of an answer, the client gets the whole answer, once."""
    # The hang is for signals, which a process may outlive by a few tokens.
    here = {"at": "generate", "step": 3}
    async with opened(first({**here, **misdeed}, {**here, "do": "hang"})) as house:
        assert await house.asked() == WHOLE
        assert house.board.current.generation == 2


@pytest.mark.parametrize("rest", ["exit", "hang"])
async def test_half_a_frame(opened: Open, rest: str) -> None:
    """Half a message, then an end or silence: noticed within its budget, and the answer goes on."""
    half = {"at": "generate", "step": 3, "do": "half_frame"}
    scenario = first(half, {"at": "generate", "step": 3, "do": rest})
    async with opened(scenario, budgets=Budgets(first_token=1.0, next_token=1.0)) as house:
        assert await house.asked() == WHOLE
        assert house.board.current.generation == 2


async def test_oversize_costs_no_memory(opened: Open) -> None:
    """A message over the limit is refused while it arrives; what was read of it is given back."""
    async with opened(first({"at": "generate", "step": 3, "do": "oversize"})) as house:
        await house.ready()
        before = psutil.Process().memory_info().rss
        assert await house.asked() == WHOLE

        assert psutil.Process().memory_info().rss - before < 48 << 20


async def test_flood_of_frames(opened: Open) -> None:
    """A worker that floods its connection in the middle of an answer fills no memory and stops no answer."""
    async with opened({"faults": [{"at": "generate", "step": 3, "do": "flood", "count": 20_000}]}) as house:
        await house.ready()
        before = psutil.Process().memory_info().rss
        assert await house.asked() == WHOLE

        assert psutil.Process().memory_info().rss - before < 32 << 20
        assert house.board.current.generation == 1


@pytest.mark.parametrize("newline", [True, False], ids=["lines", "one line"])
async def test_flood_of_output(opened: Open, newline: bool) -> None:
    """A worker that writes 50 MB to its output is not held up, and nothing of it is kept but the last lines."""
    flood = {"at": "generate", "step": 3, "do": "stderr", "count": 50_000_000, "newline": newline}
    async with opened({"faults": [flood]}) as house:
        await house.ready()
        before = psutil.Process().memory_info().rss
        assert await house.asked() == WHOLE

        assert psutil.Process().memory_info().rss - before < 32 << 20


async def test_silent_compute_thread_is_noticed(opened: Open) -> None:
    """A compute thread that hangs behind a living socket is ended within its budget and a second."""
    budgets = Budgets(first_token=30.0, next_token=1.0)
    async with opened(first({"at": "generate", "step": 3, "do": "hang"}), budgets=budgets) as house:
        await house.ready()
        began = anyio.current_time()
        asking: list[tuple[int, ...]] = []
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                asking.append(await house.asked())

            tasks.start_soon(ask)
            await house.until(lambda r: not r.ready)
            assert anyio.current_time() - began < 1.0 + 1.0

        assert asking == [WHOLE]


async def test_stopped_worker_is_noticed(opened: Open) -> None:
    """A worker that somebody stops in the middle of an answer is ended, and the answer goes on."""
    budgets = Budgets(first_token=30.0, next_token=1.0)
    here = {"at": "generate", "step": 3}
    faults = ({**here, "do": "signal", "signal": int(signal.SIGSTOP)}, {**here, "do": "hang"})
    async with opened(first(*faults), budgets=budgets) as house:
        assert await house.asked() == WHOLE


async def test_slow_prefill_is_left_alone(opened: Open) -> None:
    """A prefill of ten times the budget that reports progress is never taken for a hang."""
    scenario = {"generate": {"prefill": {"seconds": 3.0, "steps": 30}}}
    async with opened(scenario, budgets=Budgets(first_token=0.3, next_token=0.3)) as house:
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(house.asked)

        assert house.dispatch.tally.served == 8
        assert house.supervisor.departures == ()


# -- poison ------------------------------------------------------------------------------------------------

POISON = replace(EAGER, restart_limit=50)


async def _outcome(house: House, text: str) -> str | tuple[int, ...]:
    body = GENERATE.__class__(prompt=TextPrompt(text=text), max_tokens=12)
    tokens: tuple[int, ...] = ()
    try:
        async with house.dispatch.generate(body) as events:
            async for event in events:
                tokens += event.tokens if isinstance(event, Delta) else ()
    except RequestFailed as error:
        return error.message
    return tokens


@pytest.mark.parametrize("step", [0, 5], ids=["before its first token", "in the middle"])
async def test_poison_request_fails_alone(opened: Open, step: int) -> None:
    """A request that crashes its worker costs two workers and fails; the ones beside it are answered by a third."""
    fault = {"at": "generate", "step": step, "do": "exit", "code": 134, "containing": "poison"}
    outcomes: dict[str, str | tuple[int, ...]] = {}
    async with opened({"faults": [fault], "generate": {"tokens_per_second": 100}}, POISON) as house:

        async def ask(text: str) -> None:
            outcomes[text] = await _outcome(house, text)

        await house.ready()
        async with anyio.create_task_group() as tasks:
            for text in ("one", "two", "poison", "three"):
                tasks.start_soon(ask, text)
        await house.ready(3)
        after = await _outcome(house, "after")

    assert "ended two workers in a row" in str(outcomes.pop("poison"))
    for text, tokens in (outcomes | {"after": after}).items():
        assert tokens == answer(GENERATE.__class__(prompt=TextPrompt(text=text), max_tokens=12), 12)
    assert [departure.generation for departure in house.supervisor.departures if not departure.expected] == [1, 2]


# -- starts ------------------------------------------------------------------------------------------------


async def test_slow_start_under_the_budget(opened: Open) -> None:
    """A hello just within its time is in time."""
    async with opened({"hello": {"delay": 1.0}}, replace(EAGER, hello_timeout=4.0)) as house:
        assert (await house.ready()).generation == 1


async def test_configuration_error_is_not_retried(opened: Open) -> None:
    """A worker that exits with 78 is not started again, and requests are refused at once with its words."""
    async with opened({"faults": [{"at": "start", "do": "exit", "code": 78}]}) as house:
        failed = await house.until(lambda r: r.phase == "failed")

        assert failed.generation == 1
        assert "78" in (failed.reason or "")


async def test_exit_0_unasked_is_a_crash(opened: Open) -> None:
    """A worker that ends without a fault, unasked, is replaced like one that crashed."""
    async with opened(first({"at": "warmed", "do": "exit", "code": 0})) as house:
        await house.ready(2)

        [departure] = house.supervisor.departures
        assert (departure.cause, departure.expected) == ("exited with code 0", False)


@pytest.mark.parametrize(
    ("warm", "faults"),
    [
        ({"error": {"code": -32603, "message": "no"}}, []),
        ({"outcome": "failed", "reason": "two of three"}, []),
        ({"seconds": 2, "steps": 0, "ignore_cancel": True}, []),
        ({"seconds": 30, "steps": 300, "late": 0.3}, []),
    ],
    ids=["error", "failed", "cancel ignored", "late reply"],
)
async def test_warmup_that_goes_wrong_leaves_a_service(opened: Open, warm: object, faults: list[object]) -> None:
    """However warmup goes wrong, the worker is ready once, not warm, says why, and answers."""
    policy = replace(EAGER, warmup_timeout=0.3)
    async with opened({"warm": warm, "faults": faults}, policy) as house:
        ready = await house.ready()
        assert not ready.warm
        assert ready.reason
        assert await house.asked() == WHOLE
        assert house.board.current.generation == 1


@pytest.mark.parametrize("misdeed", ["garbage", "close", "exit"])
async def test_death_in_warmup_is_survived(opened: Open, misdeed: str) -> None:
    """A worker that dies of warmup again and again is at last started without it, and serves."""
    async with opened({"faults": [{"at": "warm", "do": misdeed}]}) as house:
        ready = await house.ready()

        assert (ready.warm, ready.reason) == (False, "warmup crashed the worker")
        assert await house.asked() == WHOLE


# -- orders while something else happens -------------------------------------------------------------------


async def test_requests_during_restarts_of_a_starting_worker(opened: Open) -> None:
    """Restarts in the middle of starts, with a request right after each: none is lost, none is answered twice."""
    async with opened({"load": {"seconds": 0.1, "steps": 2}}) as house:
        answers: list[tuple[int, ...]] = []

        async def ask() -> None:
            answers.append(await house.asked())

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                house.supervisor.restart(cold=False)
                await anyio.sleep(0.03)  # as long as a client that retries
                tasks.start_soon(ask)
        assert answers == [WHOLE] * 10


async def test_death_during_rewarm(opened: Open) -> None:
    """A worker that dies during a rewarm is replaced once, and whoever asked for the rewarm is told."""
    scenario = {"1": {"warm": {"seconds": 0.5, "steps": 50}}, "default": {}}
    async with opened(scenario) as house:
        await house.ready()
        async with anyio.create_task_group() as tasks:

            async def rewarm() -> None:
                with pytest.raises(Exception, match="died during the rewarm"):
                    await house.supervisor.rewarm(())

            tasks.start_soon(rewarm)
            await house.until(lambda r: r.progress is not None)
            house.kill()
        await house.ready(2)

        assert len(house.supervisor.departures) == 1


async def test_death_during_stop(opened: Open) -> None:
    """A worker that is killed while it is being stopped neither restarts nor leaves the stop hanging."""
    async with opened({"ignore_term": True, "ignore_eof": True}, replace(EAGER, stop_grace=30.0)) as house:
        await house.ready()
        house.supervisor.stop()
        await house.until(lambda r: r.phase == "stopping")
        house.kill()
        await house.until(lambda r: r.phase == "down")

        assert [departure.generation for departure in house.supervisor.departures] == [1]


async def test_zombies_and_grandchildren_go_with_the_group(opened: Open) -> None:
    """Children of a worker end with it, and nobody is left as a zombie of ours."""
    faults = [{"at": "welcome", "do": "zombies", "count": 5}, {"at": "welcome", "do": "grandchild"}]
    async with opened({"1": {"faults": faults}, "default": {}}) as house:
        await house.ready()
        family = psutil.Process().children(recursive=True)
        house.kill()
        await house.ready(2)

        assert len(family) > 1
        with anyio.fail_after(5):
            while any(process.is_running() and process.status() != "zombie" for process in family):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        assert [child for child in psutil.Process().children() if child.status() == "zombie"] == []


async def test_escaped_grandchild_is_a_known_limit(opened: Open) -> None:
    """A descendant in a session of its own outlives its worker; the daemon neither waits for it nor signals it."""
    fault = {"at": "welcome", "do": "grandchild", "setsid": True}
    async with opened({"1": {"faults": [fault]}, "default": {}}) as house:
        await house.ready()
        worker = house.supervisor.life
        assert worker is not None
        [escaped] = [process for process in psutil.Process().children(recursive=True) if process.name() == "sleep"]
        house.kill()
        await house.ready(2)
        try:
            assert escaped.is_running()
        finally:
            os.kill(escaped.pid, signal.SIGKILL)
            _reap(escaped.pid)


def _reap(pid: int) -> None:
    """An adopted child, where this process is the one that adopts."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return  # init has it
