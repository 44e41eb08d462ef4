"""The time of a streamed chat completion, as a client sees it: blocking sockets, nothing else runs meanwhile."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .children import BenchmarkError
from .report import Json

HTTP_DEADLINE = 600.0
"""Seconds in which a server may say nothing; a cold prompt of 6,800 tokens took 244 s on two slow cores."""

REASON = 4096
"""Bytes of a refusal that are read."""

ANSWER_TOKENS = 16
"""Length of the answers that are compared."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One request.

    Attributes:
        first: Seconds from sending it to the first piece of content.
        total: Seconds to the end of the stream.
        text: The whole content.
        prompt_tokens: As `usage` says; 0 where it wasn't asked for.
        cached_tokens: The same.
        tokens: Of the answer, the same.
        last: Seconds to the last piece of content.
    """

    first: float
    total: float
    text: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0
    last: float = 0.0

    @property
    def rate(self) -> float | None:
        """Tokens per second after the first one; None where there is no second one."""
        return (self.tokens - 1) / (self.last - self.first) if self.tokens > 1 and self.last > self.first else None


def chat(
    system: str | None, user: str, max_tokens: int, model: str = "default", tools: Sequence[Mapping[str, Any]] = ()
) -> Json:
    """A streamed, greedy request with usage at the end."""
    messages = [{"role": "system", "content": system}] if system is not None else []
    return {
        "model": model,
        "messages": [*messages, {"role": "user", "content": user}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **({"tools": list(tools)} if tools else {}),
    }


def ask(
    url: str, system: str | None, user: str, model: str = "default", tools: Sequence[Mapping[str, Any]] = ()
) -> Answer:
    """One request on a connection of its own."""
    client = StreamClient(url)
    try:
        return client.ask(chat(system, user, ANSWER_TOKENS, model, tools))
    finally:
        client.close()


class StreamClient:
    """Asks one server. The connection is kept if the server keeps it.

    Args:
        url: `http://HOST:PORT`.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=HTTP_DEADLINE)

    def ask(self, body: Json) -> Answer:
        """Send a request and read its answer to the end.

        Raises:
            BenchmarkError: It was refused, or broke off, or had no content.
        """
        content = json.dumps(body).encode()
        start = time.perf_counter()
        self._connection.request("POST", "/v1/chat/completions", content, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        if response.status != http.client.OK:
            raise BenchmarkError(f"a request was refused with {response.status}: {_reason(response.read(REASON))}")
        return _timed(start, response)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()


def _reason(body: bytes) -> str:
    """What the error says, in the form of OpenAI's API; else all of it."""
    text = body.decode(errors="replace")
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text


def _timed(start: float, response: http.client.HTTPResponse) -> Answer:
    first: float | None = None
    last = 0.0
    text: list[str] = []
    usage: Json = {}
    for event in _events(response):
        if piece := content(event.get("choices", ())):
            last = time.perf_counter() - start
            first = last if first is None else first
            text.append(piece)
        usage = event.get("usage") or usage
    total = time.perf_counter() - start
    if first is None:
        raise BenchmarkError("the answer has no content, so there is no time to the first piece of it")
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    tokens = usage.get("completion_tokens", 0)
    return Answer(first, total, "".join(text), usage.get("prompt_tokens", 0), cached, tokens, last)


def _events(response: http.client.HTTPResponse) -> Iterator[Json]:
    """The stream's events, to the last byte of the body: a connection with a rest can't be used again."""
    done = False
    for line in iter(response.readline, b""):
        data = line.removeprefix(b"data:").strip()
        if done or data == line.strip():
            continue
        if data == b"[DONE]":
            done = True
            continue
        event: Json = json.loads(data)
        if "error" in event:
            raise BenchmarkError(f"the stream ended in an error: {event['error']}")
        yield event
    if not done:
        raise BenchmarkError("the stream broke off before its end")


def content(choices: Sequence[Any]) -> str:
    """What a delta adds: text, reasoning, or a part of a tool call, which an agent waits for as well."""
    delta = (choices[0].get("delta") or {}) if choices else {}
    calls = "".join(json.dumps(call.get("function"), sort_keys=True) for call in delta.get("tool_calls") or ())
    return (delta.get("reasoning_content") or "") + (delta.get("content") or "") + calls
