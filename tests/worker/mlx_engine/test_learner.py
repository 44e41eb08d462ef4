"""What one worker learns from its requests, the next one warms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import (
    ChatPrompt,
    Forget,
    Generate,
    KnownPrefix,
    Noted,
    Pin,
    Prefixes,
    PrefixList,
    WarmPrefix,
)
from tests.fakes.driven_core import DrivenCore, ask, chat

SYSTEM = "You are the agent of a test. Be brief, be exact, and never touch what is not yours. " * 2
OTHER = "You are quite another agent, of quite another test, with quite other habits and manners. " * 2


class Worker(DrivenCore):
    """A core that learns, and its life's end."""

    def __init__(self, model: Path, state: Path, **limits: Any) -> None:
        super().__init__(model, state_dir=str(state), **limits)

    def known(self) -> tuple[KnownPrefix, ...]:
        listed = self.finish(self.submit(Prefixes())).result
        assert isinstance(listed, PrefixList)
        return listed.prefixes

    def learned(self) -> tuple[KnownPrefix, ...]:
        return tuple(prefix for prefix in self.known() if prefix.origin == "learned")

    def noted(self, body: Pin | Forget) -> int:
        result = self.finish(self.submit(body)).result
        assert isinstance(result, Noted)
        return result.count

    def end(self) -> None:
        self.core.close(5.0)


def test_the_next_worker_warms_what_was_seen_twice(tiny_llama: Path, tmp_path: Path) -> None:
    """A system prompt that two requests had is warm in the next worker, and its first request reuses all of it."""
    first = Worker(tiny_llama, tmp_path)
    for user in ("hello", "and now?"):
        cold = first.generate(chat(SYSTEM, user))
    first.end()
    second = Worker(tiny_llama, tmp_path)

    report = second.warm(learned=True).prefixes[0]
    warm = second.generate(chat(SYSTEM, "and now?"))

    assert report.name.startswith("learned-")
    assert report.tokens_warm == report.tokens == warm.finished.usage.cached_tokens > len(SYSTEM)
    assert warm.tokens == cold.tokens


def test_once_is_not_learned(tiny_llama: Path, tmp_path: Path) -> None:
    """A system prompt that was seen once, and a prompt that is no chat, teach nothing."""
    worker = Worker(tiny_llama, tmp_path)
    worker.generate(chat(SYSTEM, "hello"))
    for _ in range(3):
        worker.generate(ask("once upon a time"))

    assert worker.learned() == ()


def test_what_a_client_wants_kept_is_warm_at_the_next_start(tiny_llama: Path, tmp_path: Path) -> None:
    """One request with `keep` is enough: the next worker warms its opening, and the next request reuses it."""
    first = Worker(tiny_llama, tmp_path)
    first.generate(chat(SYSTEM, "hello", keep=True))
    first.end()
    second = Worker(tiny_llama, tmp_path)
    second.warm(learned=True)
    warm = second.generate(chat(SYSTEM, "and now?")).finished

    assert warm.usage.cached_tokens > len(SYSTEM)


def test_a_resumed_request_counts_once(tiny_llama: Path, tmp_path: Path) -> None:
    """A request that goes on where another worker died was counted there."""
    worker = Worker(tiny_llama, tmp_path)
    answer = worker.generate(chat(SYSTEM, "hello", 4))
    worker.generate(chat(SYSTEM, "hello", 8, emitted=answer.tokens))

    assert worker.learned() == ()


def test_noise_is_no_other_prompt(tiny_llama: Path, tmp_path: Path) -> None:
    """An agent's accounting that changes with each request doesn't keep its system prompt from being known."""
    worker = Worker(tiny_llama, tmp_path)
    for number in range(2):
        system = f"x-anthropic-billing-header: cc_version=2.1; cch={number};\n{SYSTEM}"
        answer = worker.generate(chat(system, "hello"))

    assert len(worker.learned()) == 1
    assert answer.finished.usage.cached_tokens > len(SYSTEM)


def test_noise_stays_where_that_is_wanted(tiny_llama: Path, tmp_path: Path) -> None:
    """Switched off, prompts go to the template as they came."""
    worker = Worker(tiny_llama, tmp_path, normalise=False)
    for number in range(2):
        worker.generate(chat(f"x-anthropic-billing-header: cch={number};\n{SYSTEM}", "hello"))

    assert worker.learned() == ()


def test_configured_prefixes_are_not_warmed_twice(tiny_llama: Path, tmp_path: Path) -> None:
    """A learned prefix that is configured too is warmed once, under its configured name."""
    worker = Worker(tiny_llama, tmp_path)
    for _ in range(2):
        worker.generate(chat(SYSTEM, "hello"))

    warmed = worker.warm(WarmPrefix(name="mine", system=SYSTEM), learned=True)

    assert [report.name for report in warmed.prefixes] == ["mine"]


def test_what_is_configured_comes_before_what_was_learned(tiny_llama: Path, tmp_path: Path) -> None:
    """If the time ends, what a person has asked for is warm, and what was learned is not."""
    worker = Worker(tiny_llama, tmp_path)
    for _ in range(2):
        worker.generate(chat(SYSTEM, "hello"))

    warmed = worker.warm(WarmPrefix(name="mine", system=OTHER), learned=True)

    assert [report.name for report in warmed.prefixes] == ["mine", worker.learned()[0].name]


def test_a_learned_prefix_that_does_not_fit_is_no_failure(tiny_llama: Path, tmp_path: Path) -> None:
    """Where there is no room for a learned prefix the warmup succeeds all the same, with a note."""
    first = Worker(tiny_llama, tmp_path)
    for _ in range(2):
        first.generate(chat(SYSTEM, "hello"))
    first.end()
    second = Worker(tiny_llama, tmp_path, prefix_cache_bytes=1000)

    warmed = second.warm(learned=True)

    assert (warmed.outcome, warmed.reason) == ("succeeded", None)
    assert "prefix_cache_bytes" in str(warmed.prefixes[0].note)


def test_pinned_comes_on_top(tiny_llama: Path, tmp_path: Path) -> None:
    """A pinned prefix is warmed beside the best ones, however little it is worth."""
    worker = Worker(tiny_llama, tmp_path, learn=1)
    for system, times in ((OTHER, 2), (SYSTEM, 6)):
        for _ in range(times):
            worker.generate(chat(system, "hello"))
    least = worker.learned()[-1].name

    assert worker.noted(Pin(name=least)) == 1
    assert {report.name for report in worker.warm(learned=True).prefixes} == {
        prefix.name for prefix in worker.learned()
    }
    assert [prefix.pinned for prefix in worker.learned()] == [False, True]


@pytest.mark.parametrize("by_name", [True, False])
def test_forgotten_is_not_warmed(tiny_llama: Path, tmp_path: Path, by_name: bool) -> None:
    """What is forgotten, by name or with all, is not warmed by the next worker."""
    first = Worker(tiny_llama, tmp_path)
    for _ in range(2):
        first.generate(chat(SYSTEM, "hello"))

    assert first.noted(Forget(name=first.learned()[0].name if by_name else None)) == 1
    first.end()
    assert Worker(tiny_llama, tmp_path).warm(learned=True).prefixes == ()


def test_an_unknown_name_counts_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    """A name that nothing has is counted as none, and nothing happens."""
    worker = Worker(tiny_llama, tmp_path)

    assert worker.noted(Pin(name="learned-00000000")) == 0
    assert worker.noted(Forget(name="learned-00000000")) == 0


def test_listing_tells_what_is_warm(tiny_llama: Path, tmp_path: Path) -> None:
    """The listing has configured prefixes and learned ones, with what is resident of each."""
    worker = Worker(tiny_llama, tmp_path)
    for _ in range(3):
        worker.generate(chat(SYSTEM, "hello"))
    warmed = worker.warm(WarmPrefix(name="mine", system=OTHER))
    mine, learned = worker.known()

    assert (mine.name, mine.origin, mine.tokens_warm) == ("mine", "configured", warmed.prefixes[0].tokens)
    assert (learned.origin, learned.tokens_warm, learned.seen) == ("learned", 0, 3)
    assert learned.tokens_saved > 0
    assert SYSTEM[:20] not in str(learned)


@pytest.mark.parametrize("limits", [{"learn": 0}, {"state_dir": None}])
def test_learning_can_be_off(tiny_llama: Path, tmp_path: Path, limits: dict[str, Any]) -> None:
    """Switched off, nothing is counted and nothing is written; asked, the worker says how to switch it on."""
    worker = DrivenCore(tiny_llama, **{"state_dir": str(tmp_path), **limits})
    for _ in range(2):
        worker.generate(chat(SYSTEM, "hello"))

    assert worker.finish(worker.submit(Pin(name="x"))).error.code == ErrorCode.UNSUPPORTED
    assert worker.warm(learned=True).prefixes == ()
    assert not list(tmp_path.rglob("learned*"))


def test_tools_belong_to_what_is_learned(tiny_llama: Path, tmp_path: Path) -> None:
    """The same system prompt with other tools is another prefix."""
    worker = Worker(tiny_llama, tmp_path)
    messages = ({"role": "system", "content": SYSTEM}, {"role": "user", "content": "hello"})
    tools = ({"type": "function", "function": {"name": "read", "description": "Read a file", "parameters": {}}},)
    for _ in range(2):
        for given in ((), tools):
            worker.generate(Generate(prompt=ChatPrompt(messages=messages, tools=given), max_tokens=2))

    lengths = sorted(prefix.tokens for prefix in worker.learned())
    assert len(lengths) == 2
    assert lengths[0] < lengths[1]
