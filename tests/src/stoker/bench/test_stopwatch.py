"""The time of a streamed answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from stoker.bench.children import BenchmarkError
from stoker.bench.stopwatch import Answer, StreamClient, ask, chat


def event(data: Any) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


def piece(text: str) -> bytes:
    return event({"choices": [{"delta": {"content": text}}]})


USAGE = event(
    {
        "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 7}},
    }
)
DONE = event(b"[DONE]")
WHOLE = b": still there\n\n" + piece("Pa") + piece("ris") + USAGE + DONE


class Server(HTTPServer):
    """Answers each request with the same bytes; `asked` is what came."""

    body = WHOLE
    status = 200
    asked: list[dict[str, Any]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.server.body), self.server.body))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as one:
        one.asked = []
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        yield one
        one.shutdown()
        thread.join()


def test_an_answer_is_timed_and_read(server: Server) -> None:
    """First and last piece, the end, the text, and what usage says; the request is greedy, streamed, as was asked."""
    answer = ask(server.url, "Be brief.", "Where?")

    assert 0 < answer.first <= answer.last <= answer.total
    assert (answer.text, answer.prompt_tokens, answer.cached_tokens, answer.tokens) == ("Paris", 9, 7, 2)
    assert server.asked[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Where?"},
    ]
    assert (server.asked[0]["temperature"], server.asked[0]["stream"]) == (0, True)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (piece("Pa"), "broke off before its end"),
        (event({"error": {"message": "no memory"}}), "ended in an error: .*no memory"),
        (USAGE + DONE, "no content"),
    ],
)
def test_an_answer_that_is_none_is_told(server: Server, body: bytes, words: str) -> None:
    """A stream that breaks off, ends in an error or says nothing has no time to its first token."""
    server.body = body
    with pytest.raises(BenchmarkError, match=words):
        ask(server.url, None, "Where?")


@pytest.mark.parametrize("body", [b'{"error": {"message": "too long"}}', b"too long"])
def test_a_refusal_is_told(server: Server, body: bytes) -> None:
    """With its status, and what the server said of it."""
    server.status, server.body = 400, body
    with pytest.raises(BenchmarkError, match=r"^a request was refused with 400: too long$"):
        ask(server.url, None, "Where?")


def test_a_connection_is_kept(server: Server) -> None:
    """Further requests of a client go over the same connection: the first answer is read to its last byte."""
    with closing(StreamClient(server.url)) as client:
        answers = [client.ask(chat(None, "Where?", 16)).text for _ in range(2)]

    assert answers == ["Paris", "Paris"]


def test_tokens_per_second_are_those_after_the_first() -> None:
    """The first token's time is prefill; where no second one came, there is no speed."""
    assert Answer(1.0, 9.0, "x", tokens=5, last=3.0).rate == 2.0
    assert Answer(1.0, 9.0, "x", tokens=1, last=1.0).rate is None
    assert Answer(1.0, 9.0, "x", tokens=5, last=1.0).rate is None


def test_reasoning_is_what_a_client_waits_for_too(server: Server) -> None:
    """The first piece of reasoning is the first sign of an answer: a model that thinks has no other for long."""
    thought = event({"choices": [{"delta": {"reasoning_content": "Hm. "}}]})
    server.body = thought + piece("Paris") + USAGE + DONE
    answer = ask(server.url, None, "Where?")

    assert answer.text == "Hm. Paris"
    assert 0 < answer.first <= answer.last
