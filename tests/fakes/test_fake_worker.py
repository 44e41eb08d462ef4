"""The fake worker keeps to the protocol."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stoker.ipc.errors import ErrorCode
from stoker.ipc.framing import (
    ErrorResponse,
    Notification,
    Request,
    Response,
)
from stoker.ipc.messages import (
    Cancel,
    ChatPrompt,
    Figures,
    Finished,
    Forget,
    Generate,
    Hello,
    Loaded,
    Measure,
    Pin,
    Prefixes,
    Statistics,
    Step,
    Warmed,
)
from tests.fakes.fake_daemon import GENERATE, LOAD, WARM, Start, fault, progress_of, result_of, tokens_of
from tests.fakes.fake_scenario import answer, text_of


def test_life_of_a_well_behaved_worker(start: Start) -> None:
    """Without a scenario it greets, loads, warms, answers and gives figures."""
    daemon = start()

    assert daemon.welcome().pid == daemon.process.pid
    assert result_of(daemon.ask(LOAD)).model == "tiny"
    assert result_of(daemon.ask(WARM)).prefixes[0].tokens_warm == 7
    assert isinstance(result_of(daemon.ask(Statistics())), Figures)
    frames = daemon.ask(GENERATE)
    assert tokens_of(frames) == answer(GENERATE, 6)
    assert result_of(frames).reason == "length"


def test_measures_when_idle(start: Start) -> None:
    """It measures what the scenario says, and refuses while it answers."""
    daemon = start({"speed": {"flops": 1e9}, "generate": {"prefill": {"seconds": 60, "steps": 1}}})
    daemon.welcome()
    speed = result_of(daemon.ask(Measure()))
    daemon.send(Request(2, GENERATE))
    daemon.until(Notification)
    refusal = daemon.ask(Measure(), 3)[-1]

    assert (speed.bandwidth, speed.flops) == (8e9, 1e9)
    assert isinstance(refusal, ErrorResponse)
    assert refusal.code == ErrorCode.BUSY


def test_starts_fast(start: Start) -> None:
    """The hello comes within a fraction of a second, so that tests can afford many generations."""
    began = time.monotonic()

    start().welcome()

    assert time.monotonic() - began < 2.0


def test_resumed_generation_goes_on_exactly(start: Start) -> None:
    """With emitted tokens only the rest is sent, and it is what an undisturbed run would have sent."""
    daemon = start()
    daemon.welcome()
    whole = answer(GENERATE, 6)

    frames = daemon.ask(msgspec.structs.replace(GENERATE, emitted=whole[:4]))

    assert tokens_of(frames) == whole[4:]
    assert result_of(frames).usage.completion_tokens == 6


def test_text_of_deltas_is_the_text_of_their_tokens(start: Start) -> None:
    """A test can compute the whole text of an answer beforehand."""
    daemon = start()
    daemon.welcome()

    steps = [f.body for f in daemon.ask(GENERATE) if isinstance(f, Notification) and isinstance(f.body, Step)]

    assert "".join(step.deltas[0].text for step in steps) == text_of(answer(GENERATE, 6))


def test_chat_with_a_warm_system_prompt_is_cached(start: Start) -> None:
    """A chat whose system prompt was warmed reports its tokens as cached."""
    daemon = start()
    daemon.welcome()
    daemon.ask(WARM)
    system = {"role": "system", "content": WARM.prefixes[0].system}
    chat = ChatPrompt(messages=(system, {"role": "user", "content": "hello there"}))

    usage = result_of(daemon.ask(Generate(prompt=chat))).usage

    assert (usage.cached_tokens, usage.prompt_tokens) == (7, 9)


def test_behaviour_differs_by_generation(start: Start) -> None:
    """A scenario keyed by generation applies to the one that `Welcome` names."""
    scenario = {"1": fault("load", "exit", code=9), "default": {}}
    first, second = start(scenario, generation=1), start(scenario, generation=2)

    first.welcome()
    first.send(Request(1, LOAD))
    second.welcome()

    assert first.gone() == 9
    assert isinstance(result_of(second.ask(LOAD)), Loaded)


def test_scenario_comes_from_a_file(start: Start, tmp_path: Path) -> None:
    """`FAKE_WORKER` may be the path of a file."""
    path = tmp_path / "scenario.json"
    path.write_text(json.dumps({"load": {"loaded": {"vocabulary": 7}}}))
    daemon = start(str(path))
    daemon.welcome()

    assert result_of(daemon.ask(LOAD)).vocabulary == 7


def test_wrong_protocol_version_is_said_and_refusal_is_fatal(start: Start) -> None:
    """It can claim another protocol version, and leaves with 78 when refused."""
    daemon = start({"hello": {"protocol": 99}})
    frame = next(daemon.frames)

    assert isinstance(frame, Request)
    assert isinstance(frame.body, Hello)
    assert frame.body.protocol == 99
    daemon.send(ErrorResponse(frame.id, ErrorCode.UNSUPPORTED_PROTOCOL, "no"))
    assert daemon.gone() == 78


def test_load_reports_its_steps(start: Start) -> None:
    """A load of n steps reports each of them."""
    daemon = start({"load": {"steps": 3}})
    daemon.welcome()

    assert progress_of(daemon.ask(LOAD)) == [("load", 1, 3), ("load", 2, 3), ("load", 3, 3)]


def test_what_it_knows_of_prefixes(start: Start) -> None:
    """It lists what it warmed, then what the scenario says was learned, which can be pinned and forgotten."""
    daemon = start({"known": {"learned": ["learned-1", "learned-2"]}})
    daemon.welcome()
    daemon.ask(WARM)

    counts = [
        result_of(daemon.ask(body)).count
        for body in (Pin(name="learned-2"), Pin(name="chat"), Forget(name="learned-1"), Forget(name="learned-1"))
    ]

    listed = result_of(daemon.ask(Prefixes())).prefixes
    assert counts == [1, 0, 1, 0]
    assert [(one.name, one.origin, one.pinned) for one in listed] == [
        ("chat", "configured", False),
        ("learned-2", "learned", True),
    ]
    assert result_of(daemon.ask(Forget())).count == 1
    assert len(result_of(daemon.ask(Prefixes())).prefixes) == 1


@pytest.mark.parametrize(
    ("part", "body"),
    [("load", LOAD), ("warm", WARM), ("generate", GENERATE), ("known", Prefixes()), ("known", Forget())],
)
def test_refusals(start: Start, part: str, body: Any) -> None:
    """Each request for work or for what is known can be refused with an error of the test's choice."""
    error = {"code": -32010, "message": "unusable", "remedy": "another"}
    daemon = start({part: {"error": error}})
    daemon.welcome()

    answered = daemon.ask(body)[-1]

    assert isinstance(answered, ErrorResponse)
    assert (answered.code, answered.data.remedy) == (-32010, "another")


def test_cancelled_warm_is_answered_with_what_it_has(start: Start) -> None:
    """A cancelled warmup reports the tokens that are warm by then."""
    daemon = start({"warm": {"seconds": 3600, "steps": 7000}})
    daemon.welcome()
    daemon.send(Request(1, WARM))
    daemon.until(Notification)
    daemon.send(Notification(Cancel(target=1)))

    warmed = result_of(daemon.until(Response))

    assert isinstance(warmed, Warmed)
    assert warmed.outcome == "abandoned"
    assert warmed.prefixes[0].tokens_warm < 7


def test_cancelled_generation_is_answered(start: Start) -> None:
    """A cancelled generation finishes as cancelled after the tokens that were sent."""
    daemon = start({"generate": {"tokens_per_second": 100}})
    daemon.welcome()
    daemon.send(Request(1, msgspec.structs.replace(GENERATE, max_tokens=100_000)))
    daemon.until(Notification)
    daemon.send(Notification(Cancel(target=1)))

    finished = result_of(daemon.until(Response))

    assert isinstance(finished, Finished)
    assert finished.reason == "cancelled"


def test_empty_answers(start: Start) -> None:
    """A cap of 0 tokens gives answers without any."""
    daemon = start({"generate": {"tokens": 0}})
    daemon.welcome()

    frames = daemon.ask(GENERATE)

    assert (tokens_of(frames), result_of(frames).reason) == ((), "stop")
