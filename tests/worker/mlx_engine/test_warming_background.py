"""What an abandoned warmup left is finished while there is nothing else to compute."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.ipc.framing import Notification, Response
from stoker.ipc.messages import Generate, TextPrompt, Warm, Warmed, WarmedLater, WarmPrefix
from tests.fakes.driven_core import DrivenCore, chat

SYSTEM = "A prompt that takes more than one chunk to compute, because it says the same thing again and again. " * 6
OTHER = "Another prompt of some length, which is warmed after the first one, if there is time for it at all. " * 6


def abandoned(core: DrivenCore, *, finish: bool, turns: int = 1) -> Warmed:
    """Warm two prefixes, and give up after so many turns."""
    prefixes = (WarmPrefix(name="first", system=SYSTEM), WarmPrefix(name="second", system=OTHER))
    request = core.submit(Warm(prefixes=prefixes, finish=finish))
    for _ in range(turns):
        core.core.turn()
    core.core.cancel(request)
    result = core.answer(request).result
    assert isinstance(result, Warmed)
    assert result.outcome == "abandoned"
    return result


@pytest.fixture
def core(tiny_llama: Path) -> DrivenCore:
    """A core whose chunks are small."""
    return DrivenCore(tiny_llama, chunk_seconds=0.0001)


def test_the_rest_is_finished_in_idle_time(core: DrivenCore) -> None:
    """Both prefixes become whole without being asked for again, and that is told once, when they are."""
    report = abandoned(core, finish=True)
    told = len(core.frames)

    assert core.core._figures().background == "first"
    core.turn_until(lambda: core.core.idle)
    [frame] = core.frames[told:]
    assert isinstance(frame, Notification)
    assert isinstance(frame.body, WarmedLater)
    assert [(one.name, one.tokens_warm, one.optional) for one in frame.body.prefixes] == [
        (prefix.name, prefix.tokens, False) for prefix in report.prefixes
    ]
    warm = [core.generate(chat(system, "hello", 1)).finished.usage.cached_tokens for system in (SYSTEM, OTHER)]

    assert warm == [prefix.tokens for prefix in report.prefixes]
    assert core.core._figures().background is None


def test_nothing_is_finished_where_that_is_not_wanted(core: DrivenCore) -> None:
    """A warmup that a person gives up is given up."""
    abandoned(core, finish=False)

    assert core.core.idle
    assert core.core._figures().background is None


def test_users_go_first(core: DrivenCore, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a request is computed or decoded the background work stands still, and afterwards it goes on."""
    abandoned(core, finish=True)
    busy: list[bool] = []
    work = core.scheduler._background
    assert work is not None
    step = work.step

    def watched(seconds: float) -> Response | None:
        busy.append(bool(core.scheduler._decoding or core.scheduler._waiting))
        return step(seconds)

    monkeypatch.setattr(work, "step", watched)
    core.generate(Generate(prompt=TextPrompt(text="once upon a time there was a stoker"), max_tokens=20))
    core.turn_until(lambda: core.core.idle)

    assert busy
    assert not any(busy)


def test_what_is_whole_is_told_before_another_warmup(core: DrivenCore) -> None:
    """A prefix that idle time had finished is told when another warmup comes in the middle of the next one."""
    abandoned(core, finish=True)
    core.turn_until(lambda: core.core._figures().background == "second")
    told = len(core.frames)
    core.warm(WarmPrefix(name="third", system="Be brief."))
    later = [
        frame.body.prefixes
        for frame in core.frames[told:]
        if isinstance(frame, Notification) and isinstance(frame.body, WarmedLater)
    ]

    assert [[(one.name, one.tokens_warm == one.tokens) for one in prefixes] for prefixes in later] == [
        [("first", True)]
    ]


def test_another_warmup_takes_its_place(core: DrivenCore) -> None:
    """A new warmup goes on from what the background work has; what it doesn't warm follows afterwards."""
    report = abandoned(core, finish=True)
    for _ in range(3):
        core.core.turn()
    warmed = core.warm(WarmPrefix(name="first", system=SYSTEM))

    assert warmed.outcome == "succeeded"
    assert warmed.prefixes[0].tokens_warm == report.prefixes[0].tokens
    assert core.core._figures().background == "second"
    core.turn_until(lambda: core.core.idle)
    finished = core.core._figures()
    assert finished.background is None
    assert [(one.name, one.tokens_warm) for one in finished.prefixes] == [("second", report.prefixes[1].tokens)]
