from __future__ import annotations

import builtins
import io
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from stoker.daemon.cli import completion
from tests.fakes.chat_server import Script, chat_server
from tests.fakes.command_line import Run, Serve
from tests.fakes.fake_steward import FakeSteward

Turn: TypeAlias = Callable[[str, dict[str, Any], Callable[[str], None]], Awaitable[str]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def script(serve: Serve) -> Iterator[Script]:
    script = Script()
    with chat_server(script) as url:
        serve(FakeSteward(http=url))
        yield script


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Somebody types these lines at a terminal, then Ctrl-D."""
    remaining = iter(lines)

    def read(_: str) -> str:
        try:
            return next(remaining)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(builtins, "input", read)


def test_a_prompt_is_answered(stoker: Run, script: Script) -> None:
    """The answer is printed with a final newline, and the request is an ordinary streamed chat."""
    outcome = stoker("chat", "Hi")

    assert (outcome.code, outcome.out) == (0, "Hello wörld\n")
    assert script.paths == ["/v1/chat/completions"]
    assert script.asked == [
        {"model": "default", "messages": [{"role": "user", "content": "Hi"}], "stream": True},
    ]


def test_options_are_passed_on(stoker: Run, script: Script, tmp_path: Path) -> None:
    """System prompt, length and temperature are part of the request."""
    (tmp_path / "role.md").write_text("Be brief.")
    stoker("chat", "Hi", "--system", tmp_path / "role.md", "--max-tokens", 5, "--temperature", 0)
    (asked,) = script.asked

    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (asked["max_tokens"], asked["temperature"]) == (5, 0.0)


def test_key_is_sent_where_one_is_configured(stoker: Run, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """With keys configured, the conversation carries one; without, no header is sent."""
    stoker("chat", "Hi")
    monkeypatch.setenv("STOKER_API_KEYS", "sk-local-key")
    stoker("chat", "Hi")

    assert script.authorizations == [None, "Bearer sk-local-key"]


def test_standard_input_is_the_prompt(stoker: Run, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is piped in is asked."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is this?\n"))
    stoker("chat")

    assert script.asked[0]["messages"] == [{"role": "user", "content": "What is this?\n"}]


def test_nothing_to_say_is_wrong_usage(stoker: Run, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty input is not sent."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))

    assert stoker("chat").code == 2
    assert script.asked == []


def test_a_conversation_remembers(stoker: Run, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal each question comes with what was said before; Ctrl-D ends it."""
    typed(monkeypatch, "Hi", "", "And?")
    outcome = stoker("chat")

    assert outcome.code == 0
    assert [message["content"] for message in script.asked[1]["messages"]] == ["Hi", "Hello wörld", "And?"]


def test_a_failed_turn_does_not_end_the_conversation(
    stoker: Run, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went wrong is said, and the next question is asked without the failed one."""
    typed(monkeypatch, "Hi", "Again")
    script.status, script.answer = 503, b'{"error": {"message": "no worker is ready"}}'
    outcome = stoker("chat")

    assert outcome.code == 0
    assert outcome.err == "stoker: no worker is ready\n" * 2
    assert len(script.asked[1]["messages"]) == 1


def test_ctrl_c_ends_the_answer_only(stoker: Run, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted answer is forgotten, and the conversation goes on."""
    typed(monkeypatch, "Long story", "Hi")
    turns: Iterator[Turn] = iter([_interrupted, completion.stream])

    async def stream(url: str, body: dict[str, Any], write: Callable[[str], None], *_: object) -> str:
        return await next(turns)(url, body, write)

    monkeypatch.setattr(completion, "stream", stream)
    outcome = stoker("chat")

    assert outcome.code == 0
    assert [message["content"] for message in script.asked[0]["messages"]] == ["Hi"]


async def _interrupted(*_: object) -> str:
    raise KeyboardInterrupt


def test_a_refusal_is_one_line(stoker: Run, script: Script) -> None:
    """The server's words, and exit code 1 where trying later may help."""
    script.status, script.answer = 503, b'{"error": {"message": "no worker is ready"}}'
    outcome = stoker("chat", "Hi")

    assert (outcome.code, outcome.out, outcome.err) == (1, "", "stoker: no worker is ready\n")
