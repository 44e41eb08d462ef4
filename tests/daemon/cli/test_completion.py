from __future__ import annotations

import pytest

from stoker.daemon.cli.completion import stream
from stoker.daemon.cli.outcome import Failure
from tests.fakes.chat_server import DONE, Script, chat_server, chunk

pytestmark = pytest.mark.anyio


async def ask(script: Script) -> tuple[str, list[str]]:
    pieces: list[str] = []
    with chat_server(script) as url:
        return await stream(url, {"model": "default"}, pieces.append), pieces


async def test_pieces_come_as_they_are_streamed() -> None:
    """Each piece is handed on, and the whole answer returned; comments and empty deltas are nothing."""
    script = Script(
        answer=b": waiting\n\n" + chunk("a") + b'data: {"choices": []}\n\n' + chunk("") + chunk("é") + DONE
    )

    assert await ask(script) == ("aé", ["a", "é"])


@pytest.mark.parametrize(
    ("script", "words", "code"),
    [
        (Script(503, b'{"error": {"message": "no worker is ready"}}'), "no worker is ready", 1),
        (Script(400, b'{"error": {"message": "too long a prompt", "type": "x"}}'), "too long a prompt", 2),
        (Script(502, b"<html>"), "answered 502", 2),
        (Script(answer=chunk("a") + b'data: {"error": {"message": "the worker died"}}\n\n'), "the worker died", 2),
        (Script(answer=chunk("a")), "ended before its end", 2),
        (Script(answer=b"data: what?\n\n"), "broke off", 2),
    ],
)
async def test_what_goes_wrong_is_said(script: Script, words: str, code: int) -> None:
    """Refusals have the server's own words; an answer without its end is never taken for a whole one."""
    with pytest.raises(Failure, match=words) as caught:
        await ask(script)

    assert caught.value.exit_code == code


async def test_a_server_that_is_gone_is_said() -> None:
    """A connection that can't be made is a failure in one line."""
    with chat_server(Script()) as url:
        pass
    with pytest.raises(Failure, match="broke off"):
        await stream(url, {}, lambda _: None)
