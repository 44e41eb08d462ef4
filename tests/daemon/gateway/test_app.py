"""What surrounds every request: shapes of errors, methods, limits, silence about prompts."""

from __future__ import annotations

import gzip
import json
import logging

import pytest

from stoker.daemon.gateway import app
from tests.fakes.fake_dispatch import STARTED, FakeBackend, delta, playing
from tests.fakes.http import chat, connected, exchange, serving

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
SECRET = "the rain in Spain"  # stands for what a user may have written


async def test_unknown_path_is_a_json_404() -> None:
    """A wrong path is told in the API's own shape."""
    reply = await exchange(FakeBackend(), "GET", "/v2/nothing")

    assert reply.status == 404
    assert reply.error["code"] == "unknown_url"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", CHAT, "POST"), ("POST", "/livez", "GET, HEAD"), ("DELETE", "/v1/models/x", "GET, HEAD")],
)
async def test_wrong_method_names_the_right_ones(method: str, path: str, allowed: str) -> None:
    """A 405 says in `Allow` what is allowed, and has a JSON body."""
    reply = await exchange(FakeBackend(), method, path)

    assert reply.status == 405
    assert reply.headers["allow"] == allowed
    assert reply.error["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/status", "/v1/models", "/v1/models/default"])
async def test_head_is_a_get_without_its_body(path: str) -> None:
    """HEAD has the status and the length of the GET, and the connection stays usable."""
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.ask("HEAD", path)
        head = await client.reply(to_head=True)
        await client.ask("GET", path)
        get = await client.reply()

    assert head.status == get.status == 200
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.body))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"model": "a"', b"[" * 100_000])
async def test_malformed_json_is_a_400(body: bytes) -> None:
    """Whatever the bytes are, the answer is a 400 in the API's shape."""
    reply = await exchange(FakeBackend(), "POST", CHAT, body)

    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"


async def test_wrong_field_is_named() -> None:
    """`param` is the path of the field that is wrong."""
    reply = await exchange(FakeBackend(), "POST", CHAT, chat(messages=[{"role": "user", "content": 3}]))

    assert reply.status == 400
    assert reply.error["param"] == "messages[0].content"


async def test_body_over_the_limit_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A length over the limit is a 413 though not a byte of the body has come."""
    monkeypatch.setattr(app, "BODY_LIMIT", 1000)
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n")
        reply = await client.reply()

    assert reply.status == 413
    assert reply.error["code"] == "request_too_large"


async def test_chunked_body_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that doesn't tell its length is counted while it comes."""
    monkeypatch.setattr(app, "BODY_LIMIT", 1000)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(head + b"800\r\n" + b" " * 0x800 + b"\r\n0\r\n\r\n")
        reply = await client.reply()

    assert reply.status == 413
    assert reply.error["code"] == "request_too_large"


async def test_broken_body_is_a_400() -> None:
    """A body that is not in the encoding that it claims is the client's fault."""
    headers = [("Host", "localhost"), ("Content-Encoding", "gzip")]
    reply = await exchange(FakeBackend(), "POST", CHAT, b"no gzip at all", headers)

    assert reply.status == 400
    assert reply.error["code"] == "invalid_body"
    assert reply.headers["connection"] == "close"


async def test_compressed_body_is_read() -> None:
    """A body may come compressed."""
    headers = [("Host", "localhost"), ("Content-Encoding", "gzip")]
    reply = await exchange(FakeBackend(), "POST", CHAT, gzip.compress(json.dumps(chat()).encode()), headers)

    assert reply.status == 200


async def test_connection_serves_again_after_a_refusal() -> None:
    """Requests on one connection, also sent at once, are answered in order; a refusal doesn't end it."""
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.ask("POST", CHAT, b"{")
        await client.ask("POST", CHAT, chat(stream=True))
        await client.ask("GET", "/livez")
        statuses = [(await client.reply()).status for _ in range(3)]

    assert statuses == [400, 200, 200]


async def test_client_may_ask_whether_to_continue() -> None:
    """A client that waits for leave to send its body gets it."""
    body = json.dumps(chat()).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(head.encode())
        leave = await client.until(b"\r\n\r\n")
        await client.send(body)
        reply = await client.reply()

    assert leave.startswith(b"HTTP/1.1 100 Continue")
    assert reply.status == 200


async def test_unforeseen_failure_is_a_500_in_shape() -> None:
    """A fault of our own is a JSON 500 that tells nothing of its inside."""
    reply = await exchange(playing(RuntimeError(SECRET)), "POST", CHAT, chat())

    assert reply.status == 500
    assert reply.error["type"] == "server_error"
    assert SECRET not in reply.error["message"]


async def test_unforeseen_failure_is_found_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    """The log names the request by the id that the client was told."""
    reply = await exchange(playing(RuntimeError(SECRET)), "POST", CHAT, chat())

    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.headers["x-request-id"] in "".join(capfd.readouterr())


async def test_every_answer_has_an_id_of_its_own() -> None:
    """Good answers, streams and refusals carry `X-Request-Id`; under Anthropic's paths it is the `request-id`."""
    requests = (("GET", "/livez"), ("POST", CHAT), ("POST", "/v1/messages"), ("GET", "/nothing"))
    replies = [await exchange(FakeBackend(), method, path, chat(stream=True)) for method, path in requests]

    assert len({reply.headers["x-request-id"] for reply in replies}) == len(replies)
    assert replies[2].headers["request-id"] == replies[2].headers["x-request-id"]


async def test_logs_tell_no_prompt(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither a served request, nor a failed one, nor unreadable bytes put their text into a log."""
    caplog.set_level(logging.DEBUG)
    backend = playing(STARTED, delta(SECRET), RuntimeError(SECRET))
    prompt = chat(messages=[{"role": "user", "content": SECRET}], stream=True)
    await exchange(backend, "POST", CHAT, prompt)
    async with serving(backend) as address, connected(address) as client:
        await client.send(f"{SECRET}\r\n\r\n".encode())
        await client.reply()

    printed = "".join(capfd.readouterr())
    assert "gateway.internal_error" in printed + caplog.text
    assert SECRET not in printed + caplog.text
