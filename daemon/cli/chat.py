"""`stoker chat`: talk to the running model."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer

from ...ipc.control import ControlClient
from ..config import load_api_key
from .connection import SocketOption, ask
from .order import read_prompt
from .outcome import Failure


def chat(
    prompt: Annotated[
        str | None, typer.Argument(help="What to say; without it: standard input, or a conversation on a terminal.")
    ] = None,
    system: Annotated[Path | None, typer.Option("--system", metavar="FILE", help="System prompt, UTF-8.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, metavar="N", help="Longest answer.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0.0, max=2.0, metavar="T", help="0 is greedy.")
    ] = None,
    socket: SocketOption = None,
) -> None:
    """Talk to the running model; the answer is streamed.

    Ctrl-C ends an answer, Ctrl-D a conversation.
    """
    start = [{"role": "system", "content": read_prompt(system)}] if system else []
    options = {"max_tokens": max_tokens, "temperature": temperature}
    conversation = Conversation(
        ask(socket, ControlClient.status).http,
        start,
        {k: v for k, v in options.items() if v is not None},
        load_api_key(os.environ),
    )
    if prompt is None and sys.stdin.isatty():
        _converse(conversation)
        return
    text = sys.stdin.read() if prompt is None else prompt
    if not text.strip():
        raise Failure("there is nothing to say; give a prompt, or pipe one in")
    conversation.say(text, _write)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _converse(conversation: Conversation) -> None:
    with suppress(ImportError):  # a Python without it reads plain lines
        import readline  # noqa: F401, PLC0415 - gives `input` editing and history
    while True:
        try:
            text = input("> ")
        except EOFError:
            _write("\n")
            return
        if text.strip():
            _turn(conversation, text)


def _turn(conversation: Conversation, text: str) -> None:
    try:
        conversation.say(text, _write)
    except KeyboardInterrupt:
        _write("\n")  # this answer only
    except Failure as error:
        typer.echo(f"stoker: {error}", err=True)


class Conversation:
    """What was said so far. An answer that was broken off, and its question, are forgotten.

    Args:
        url: Base URL of the HTTP API.
        messages: What comes before the first question.
        options: Further fields of each request.
        key: For an API that wants one.
    """

    def __init__(
        self, url: str, messages: list[dict[str, str]], options: dict[str, Any], key: str | None = None
    ) -> None:
        self._url = url
        self._key = key
        self._messages = messages
        self._options = options

    def say(self, text: str, write: Callable[[str], None]) -> None:
        """Ask, hand the answer to `write` piece by piece, with a final newline, and remember both.

        Raises:
            Failure: If there is no whole answer.
        """
        from .completion import stream  # noqa: PLC0415 - aiohttp takes longer to import than most commands to run

        asked = [*self._messages, {"role": "user", "content": text}]
        body = {"model": "default", "messages": asked, "stream": True, **self._options}
        answer = anyio.run(stream, f"{self._url}/v1/chat/completions", body, write, self._key)
        write("" if answer.endswith("\n") else "\n")
        self._messages = [*asked, {"role": "assistant", "content": answer}]
