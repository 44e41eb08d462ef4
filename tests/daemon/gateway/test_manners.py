"""HTTP, byte by byte: what can be read in two ways is refused, and what is right is served."""

from __future__ import annotations

import gzip
import json
import re
import zlib

import pytest

from tests.fakes.fake_dispatch import FakeBackend
from tests.fakes.http import RawClient, Reply, chat, connected, exchange, serving

pytestmark = pytest.mark.anyio

BODY = json.dumps(chat()).encode()
SIZE = b"%d" % len(BODY)
HEX = b"%x" % len(BODY)
CHUNKS = HEX + b"\r\n" + BODY + b"\r\n0\r\n\r\n"

HOST = b"Host: localhost\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST
GET = b"GET /livez HTTP/1.1\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: " + SIZE + b"\r\n"
SMUGGLED = b"GET /status HTTP/1.1\r\n" + HOST + b"\r\n"
"""What an attacker would have us take for the next request."""


def request(head: bytes, body: bytes = b"") -> bytes:
    return head + b"\r\n" + body


TWO_READINGS = {
    "length and chunks": request(POST + LENGTH + CHUNKED, CHUNKS),
    "chunks and length": request(POST + CHUNKED + LENGTH, CHUNKS),
    "two lengths that differ": request(POST + LENGTH + b"Content-Length: 3\r\n", BODY),
    "two equal lengths": request(POST + LENGTH + LENGTH, BODY),
    "a list of lengths": request(POST + b"Content-Length: " + SIZE + b", " + SIZE + b"\r\n", BODY),
    "a signed length": request(POST + b"Content-Length: +" + SIZE + b"\r\n", BODY),
    "a negative length": request(POST + b"Content-Length: -1\r\n"),
    "a hexadecimal length": request(POST + b"Content-Length: 0x10\r\n", BODY),
    "a grouped length": request(POST + b"Content-Length: 6_3\r\n", BODY),
    "an empty length": request(POST + b"Content-Length: \r\n", BODY),
    "an endless length": request(POST + b"Content-Length: " + b"9" * 30 + b"\r\n", BODY),
    "a length in other digits": request(POST + "Content-Length: ٣\r\n".encode(), BODY),
    "chunked twice": request(POST + b"Transfer-Encoding: chunked, chunked\r\n", CHUNKS),
    "chunked in two headers": request(POST + CHUNKED + CHUNKED, CHUNKS),
    "chunked and compressed": request(POST + b"Transfer-Encoding: gzip, chunked\r\n", CHUNKS),
    "chunked not last": request(POST + b"Transfer-Encoding: chunked, gzip\r\n", CHUNKS),
    "not quite chunked": request(POST + b"Transfer-Encoding: xchunked\r\n", CHUNKS),
    "identity": request(POST + b"Transfer-Encoding: identity\r\n", CHUNKS),
    "chunked after a control character": request(POST + b"Transfer-Encoding: \x0bchunked\r\n", CHUNKS),
    "a space before the colon": request(POST + b"Transfer-Encoding : chunked\r\n", CHUNKS),
    "chunks in HTTP/1.0": request(POST.replace(b"1.1", b"1.0") + CHUNKED, CHUNKS),
    "a chunk size with 0x": request(POST + CHUNKED, b"0x" + CHUNKS),
    "a signed chunk size": request(POST + CHUNKED, b"+" + CHUNKS),
    "a negative chunk size": request(POST + CHUNKED, b"-" + CHUNKS),
    "a space before a chunk size": request(POST + CHUNKED, b" " + CHUNKS),
    "a space after a chunk size": request(POST + CHUNKED, CHUNKS.replace(HEX + b"\r", HEX + b" \r", 1)),
    "an endless chunk size": request(POST + CHUNKED, b"F" * 17 + b"\r\n" + BODY),
    "no chunk size": request(POST + CHUNKED, b"\r\n" + BODY),
    "a line feed after a chunk size": request(POST + CHUNKED, CHUNKS.replace(b"\r\n", b"\n", 1)),
    "a line feed in a chunk extension": request(POST + CHUNKED, CHUNKS.replace(b"\r\n", b";a\nb\r\n", 1)),
    "a line feed after a chunk": request(POST + CHUNKED, CHUNKS.replace(b"\r\n0", b"\n0")),
    "more than a chunk": request(POST + CHUNKED, CHUNKS.replace(b"\r\n0", b"XX0")),
    "line feeds after the chunks": request(POST + CHUNKED, CHUNKS.replace(b"0\r\n\r\n", b"0\n\n")),
    "a length in the trailer": request(POST + CHUNKED, CHUNKS[:-2] + b"Content-Length: 5\r\n\r\n"),
    "a folded header": request(GET + HOST + b"X: a\r\n b\r\n"),
    "a header folded with a tab": request(GET + HOST + b"X: a\r\n\tb\r\n"),
    "a space before the first header": request(GET + b" " + HOST),
    "a space before the colon of Host": request(GET + b"Host : localhost\r\n"),
    "line feeds for line ends": (GET + HOST).replace(b"\r\n", b"\n") + b"\n",
    "one line feed for a line end": request(GET + b"Host: localhost\nX: y\r\n"),
    "a line feed for the last line": GET + HOST + b"\n",
    "a carriage return for a line end": request(GET + b"Host: localhost\rX: y\r\n"),
    "a carriage return in a value": request(GET + HOST + b"X: a\rb\r\n"),
    "a zero in a value": request(GET + HOST + b"X: a\0b\r\n"),
    "a control character in a value": request(GET + HOST + b"X: a\x01b\r\n"),
    "a header without a name": request(GET + HOST + b": y\r\n"),
    "a header without a colon": request(GET + HOST + b"abc\r\n"),
    "a name that is none": request(GET + HOST + b"a(b: y\r\n"),
    "two hosts": request(GET + HOST + HOST),
    "no host": request(GET),
    "another host in the target": request(b"GET http://evil.example/livez HTTP/1.1\r\n" + HOST),
    "somebody in the target": request(b"GET http://a@localhost/livez HTTP/1.1\r\n" + HOST),
    "a fragment": request(b"GET /livez#x HTTP/1.1\r\n" + HOST),
    "a relative target": request(b"GET livez HTTP/1.1\r\n" + HOST),
    "a tab in the request line": request(b"GET\t/livez\tHTTP/1.1\r\n" + HOST),
    "a space after the version": request(b"GET /livez HTTP/1.1 \r\n" + HOST),
    "a version that is none": request(b"GET /livez HTTP/1.10\r\n" + HOST),
    "a small method": request(b"get /livez HTTP/1.1\r\n" + HOST),
    "bytes in the target": request(b"GET /\xff HTTP/1.1\r\n" + HOST),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 500,
    "HTTP/2 with prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a body that was not announced": request(POST, BODY),
}


@pytest.mark.parametrize("data", TWO_READINGS.values(), ids=TWO_READINGS)
async def test_what_could_be_read_in_two_ways_is_refused(data: bytes) -> None:
    """The last answer is an error in shape, nothing that follows is served, and the connection ends."""
    backend = FakeBackend()
    async with serving(backend) as address, connected(address) as client:
        await client.send(data + SMUGGLED)
        answers = await client.rest()

    *_, last = re.split(rb"(?=HTTP/1\.[01] [0-9])", answers)
    assert last.split()[1] in {b"400", b"501"}
    assert json.loads(last.partition(b"\r\n\r\n")[2])["error"]["code"] in {"invalid_http", "invalid_host"}
    assert b'"restarts"' not in answers  # of /status
    assert not backend.dispatch.bodies


LONG = {
    "path": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST,
    "query": b"GET /livez?" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST,
    "header": GET + HOST + b"X: " + b"a" * 9000 + b"\r\n",
    "name of a header": GET + HOST + b"a" * 9000 + b": x\r\n",
    "headers": GET + HOST + b"".join(b"X%d: y\r\n" % index for index in range(129)),
}


@pytest.mark.parametrize("head", LONG.values(), ids=LONG)
async def test_heads_are_bounded(head: bytes) -> None:
    """A line of the head may have 8,190 bytes, and there may be 128 headers; more is refused."""
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(request(head))
        reply = await client.reply()

    assert reply.status == 400
    assert reply.error["code"] == "invalid_http"


@pytest.mark.parametrize("trailer", [b"X: " + b"y" * 9000 + b"\r\n", b"X: y\r\n" * 200], ids=["long", "many"])
async def test_trailers_are_bounded(trailer: bytes) -> None:
    """What follows the last chunk is bounded like a head."""
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(request(POST + CHUNKED, CHUNKS[:-2] + trailer + b"\r\n"))
        rest = await client.rest()

    assert b"invalid_http" in rest


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/0.9"])
async def test_other_versions_are_refused(version: bytes) -> None:
    """Only HTTP/1.0 and 1.1 are spoken."""
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(request(b"GET /livez " + version + b"\r\n" + HOST))
        reply = await client.reply()
        assert await client.rest() == b""

    assert reply.status == 505


async def test_proxies_are_elsewhere() -> None:
    """CONNECT is refused, and ends the connection."""
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(request(b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST))
        reply = await client.reply()
        assert await client.rest() == b""

    assert reply.status == 501


RIGHT = {
    "a length": request(POST + LENGTH, BODY),
    "spaces around a length": request(POST + b"Content-Length:  " + SIZE + b" \r\n", BODY),
    "chunks": request(POST + CHUNKED, CHUNKS),
    "chunks in capitals": request(POST + b"TRANSFER-ENCODING: CHUNKED\r\n", CHUNKS),
    "a chunk extension": request(POST + CHUNKED, CHUNKS.replace(b"\r\n", b";a=b\r\n", 1)),
    "a trailer": request(POST + CHUNKED, CHUNKS[:-2] + b"X: y\r\n\r\n"),
    "our name in the target": request(POST.replace(b" /", b" http://localhost/") + LENGTH, BODY),
    "HTTP/1.0": request(POST.replace(b"1.1", b"1.0") + LENGTH, BODY),
    "an upgrade that is not taken": request(POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + LENGTH, BODY),
    "empty lines before": b"\r\n\r\n" + request(POST + LENGTH, BODY),
    "identity": request(POST + b"Content-Encoding: identity\r\n" + LENGTH, BODY),
}


@pytest.mark.parametrize("data", RIGHT.values(), ids=RIGHT)
async def test_what_is_right_is_served(data: bytes) -> None:
    """Every proper way to send a body works."""
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(data)
        reply = await client.reply()

    assert reply.status == 200
    assert reply.json["object"] == "chat.completion"


async def test_body_may_come_byte_by_byte() -> None:
    """Where packets begin and end means nothing."""
    async with serving(FakeBackend()) as address, connected(address) as client:
        for byte in request(POST + CHUNKED, CHUNKS):
            await client.send(bytes((byte,)))
        reply = await client.reply()

    assert reply.status == 200


# -- Expect, OPTIONS ---------------------------------------------------------------------------------------


async def expecting(what: bytes, host: bytes = HOST, size: bytes = SIZE) -> Reply:
    head = POST.replace(HOST, host) + b"Expect: " + what + b"\r\nContent-Length: " + size + b"\r\n"
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(request(head))
        return await client.reply()


async def test_client_is_not_told_to_continue_what_is_refused() -> None:
    """Who may not ask, or would send too much, hears so instead of sending its body; the connection ends."""
    foreign = await expecting(b"100-continue", host=b"Host: evil.example\r\n")
    large = await expecting(b"100-Continue", size=b"99999999")

    assert (foreign.status, large.status) == (403, 413)
    assert foreign.headers["connection"] == large.headers["connection"] == "close"


async def test_other_expectations_are_refused() -> None:
    """What can't be fulfilled is a 417 in shape, also for a path that isn't there."""
    reply = await expecting(b"the-best")
    nowhere = await exchange(FakeBackend(), "GET", "/nothing", headers=[("Host", "localhost"), ("Expect", "x")])

    assert reply.status == nowhere.status == 417
    assert reply.error["param"] == "Expect"
    assert nowhere.error["message"]


@pytest.mark.parametrize(
    ("target", "allowed"),
    [("/v1/chat/completions", "OPTIONS, POST"), ("/livez", "GET, HEAD, OPTIONS"), ("*", "GET, HEAD, OPTIONS, POST")],
)
async def test_options_tells_what_is_allowed(target: str, allowed: str) -> None:
    """OPTIONS is answered for each path, and for the whole server."""
    reply = await exchange(FakeBackend(), "OPTIONS", target)

    assert reply.status == 204
    assert reply.headers["allow"] == allowed


async def test_options_of_nothing_is_a_404() -> None:
    """A path that isn't there allows nothing."""
    assert (await exchange(FakeBackend(), "OPTIONS", "/nothing")).status == 404


# -- content coding ----------------------------------------------------------------------------------------


async def coded(body: bytes, *codings: str) -> Reply:
    headers = [("Host", "localhost"), *(("Content-Encoding", coding) for coding in codings)]
    return await exchange(FakeBackend(), "POST", "/v1/chat/completions", body, headers)


@pytest.mark.parametrize(
    ("coding", "body"),
    [("gzip", gzip.compress(BODY)), ("GZIP", gzip.compress(BODY)), ("deflate", zlib.compress(BODY))],
    ids=["gzip", "GZIP", "deflate"],
)
async def test_compressed_bodies_are_read(coding: str, body: bytes) -> None:
    """A body may come in gzip or deflate."""
    assert (await coded(body, coding)).status == 200


@pytest.mark.parametrize("codings", [("br",), ("zstd",), ("rot13",), ("gzip, gzip",), ("gzip", "gzip"), ("",)])
async def test_unknown_codings_are_refused(codings: tuple[str, ...]) -> None:
    """A body in a coding that isn't known is a 415 that names those that are, not a body taken as plain."""
    reply = await coded(BODY, *codings)

    assert reply.status == 415
    assert reply.error["code"] == "unsupported_encoding"
    assert reply.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("size", [33 << 20, 300 << 20])
async def test_bodies_are_bounded_after_decompression(size: int) -> None:
    """A small body that would become a large one is refused, and the next request is served at once."""
    bomb = gzip.compress(b" " * size, 1)
    head = POST + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(bomb)
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.send(request(head, bomb))
        reply = await client.reply()
        async with connected(address) as other:
            assert await alive(other)

    assert reply.status == 413
    assert reply.error["code"] == "request_too_large"


async def alive(client: RawClient) -> bool:
    await client.ask("GET", "/livez")
    return (await client.reply()).status == 200


async def test_answers_do_not_tell_versions() -> None:
    """`Server` is our name only, on good answers, refusals, and what is no HTTP."""
    async with serving(FakeBackend()) as address:
        for data in (request(GET + HOST), request(b"GET /nothing HTTP/1.1\r\n" + HOST), b"nonsense\r\n\r\n"):
            async with connected(address) as client:
                await client.send(data)
                assert (await client.reply()).headers["server"] == "stoker"
