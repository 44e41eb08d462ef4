"""Whatever is wrong with a line has its answer, and nothing comes of it but that."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stoker.ipc.errors import ErrorCode
from stoker.ipc.framing import (
    ID_LIMIT,
    Dialect,
    ErrorResponse,
    Frame,
    FrameDecoder,
    Malformed,
    ProtocolError,
    decode,
    encode,
)
from tests.fakes import wire_strategies as wire
from tests.fakes.dialects import CLIENT, DAEMON, WORKER


def feed_all(decoder: FrameDecoder, pieces: Iterable[bytes]) -> list[Frame | Malformed]:
    return [frame for piece in pieces for frame in decoder.feed(piece)]


def error_of(line: bytes, dialect: Dialect = WORKER) -> ErrorResponse:
    frame = decode(line, dialect)
    assert isinstance(frame, Malformed)
    return frame.error


def call(**members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "statistics", **members}).encode()


@given(st.lists(st.binary(max_size=200) | st.text(max_size=50).map(str.encode), max_size=6))
@example([b"{", b"}\n", b"\n\n\r\n", b"[]\n"])
def test_random_bytes_raise_nothing_but_protocol_errors(pieces: list[bytes]) -> None:
    """Whatever comes is a frame, a malformed line or a protocol error."""
    decoder = FrameDecoder(WORKER, limit=100)

    try:
        frames = feed_all(decoder, pieces)
        decoder.end()
    except ProtocolError:
        return
    assert all(isinstance(frame, Malformed) for frame in frames)


JSON_RPC_MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | wire.JSON,
        "id": wire.IDS | wire.JSON,
        "method": st.sampled_from(["load", "warm", "generate", "statistics", "cancel"]) | wire.JSON,
        "params": wire.JSON,
        "result": wire.JSON,
        "error": wire.JSON | st.fixed_dictionaries({"code": wire.JSON, "message": wire.JSON, "data": wire.JSON}),
    },
)


@given(JSON_RPC_MEMBERS, st.sampled_from([WORKER, DAEMON, CLIENT]))
def test_near_misses_never_raise(members: dict[str, Any], dialect: Dialect) -> None:
    """Objects that look like JSON-RPC, with members of any type, are read or refused with an answer that fits."""
    frame = decode(msgspec.json.encode(members), dialect)

    if isinstance(frame, Malformed):
        assert len(encode(frame.error)) < 4096


# -- bad lines, each with its answer -----------------------------------------------------------------------

PARSE_ERRORS = {
    "half an object": b'{"jsonrpc":"2.0"',
    "no JSON": b"hello",
    "two values": call() + b" 1",
    "NaN": b'{"jsonrpc":"2.0","id":1,"method":"statistics","params":{"x":NaN}}',
    "invalid UTF-8 in a value": b'{"jsonrpc":"2.0","id":1,"method":"\xff"}',
    "invalid UTF-8 in an ignored value": b'{"jsonrpc":"2.0","id":1,"method":"statistics","params":{"x":"\xff"}}',
    "invalid UTF-8 in a key": b'{"jsonrpc":"2.0","id":1,"method":"statistics","\xff":1}',
    "overlong UTF-8": b'{"jsonrpc":"2.0","id":1,"method":"\xc0\xaf"}',
    "lone surrogate": b'{"jsonrpc":"2.0","id":1,"method":"statistics","params":{"x":"\\ud800"}}',
    "UTF-16": '{"jsonrpc":"2.0"}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + call(),
    "null byte": b"\0",
    "nesting without end": b'{"jsonrpc":"2.0","id":1,"method":"statistics","params":{"x":' + b"[" * 200_000,
    "objects without end": b'{"jsonrpc":"2.0","id":1,"params":' + b'{"x":' * 200_000,
}


@pytest.mark.parametrize("line", PARSE_ERRORS.values(), ids=PARSE_ERRORS)
def test_line_that_is_no_json(line: bytes) -> None:
    """What is no UTF-8 JSON is a parse error without an id."""
    error = error_of(line)

    assert (error.code, error.id) == (ErrorCode.PARSE_ERROR, None)


INVALID_REQUESTS = {
    "number": (b"1", None),
    "string": (b'"ready"', None),
    "null": (b"null", None),
    "empty object": (b"{}", None),
    "batch": (b"[" + call() + b"]", None),
    "empty batch": (b"[]", None),
    "batch nested without end": (b"[" * 200_000, None),
    "no version": (b'{"id":1,"method":"statistics"}', 1),
    "other version": (call(jsonrpc="1.0"), 1),
    "other version, and nesting without end": (b'{"jsonrpc":"1","id":1,"x":' + b"[" * 200_000, None),
    "other version, cut off": (b'{"jsonrpc":"1","id":1,', None),
    "method of another type": (call(method=7), 1),
    "null id": (call(id=None), None),
    "fractional id": (call(id=1.5), None),
    "boolean id": (call(id=True), None),
    "array id": (call(id=[1]), None),
    "id over 64 bits": (call(id=2**63), None),
    "id of thousands of digits": (b'{"jsonrpc":"2.0","method":"statistics","id":' + b"9" * 5000 + b"}", None),
    "id that is too long": (call(id="x" * (ID_LIMIT + 1)), None),
    "neither call nor answer": (b'{"jsonrpc":"2.0","id":"a"}', "a"),
    "result and error": (b'{"jsonrpc":"2.0","id":2,"result":1,"error":{"code":1,"message":"m"}}', 2),
    "result without id": (b'{"jsonrpc":"2.0","result":1}', None),
    "error of another type": (b'{"jsonrpc":"2.0","id":3,"error":"no"}', 3),
    "error without code": (b'{"jsonrpc":"2.0","id":3,"error":{"message":"no"}}', 3),
}


@pytest.mark.parametrize(("line", "request_id"), INVALID_REQUESTS.values(), ids=INVALID_REQUESTS)
def test_json_that_is_no_json_rpc(line: bytes, request_id: object) -> None:
    """JSON that is no JSON-RPC 2.0 message is an invalid request, answered under its id where it has one."""
    error = error_of(line)

    assert (error.code, error.id) == (ErrorCode.INVALID_REQUEST, request_id)


TEXT_PROMPT = b'"prompt":{"type":"text","text":""}'

INVALID_PARAMS = {
    "positional": ("statistics", b"[1]"),
    "null": ("statistics", b"null"),
    "number": ("statistics", b"3"),
    "missing field": ("generate", b"{}"),
    "wrong type": ("load", b'{"model":1,"cache_dir":"/"}'),
    "string for a number": ("load", b'{"model":"m","cache_dir":"/","max_batch":"16"}'),
    "unknown prompt type": ("generate", b'{"prompt":{"type":"image"}}'),
    "number out of range": ("generate", b'{%s,"sampling":{"temperature":1e999}}' % TEXT_PROMPT),
    "huge integer": ("generate", b'{%s,"max_tokens":%s}' % (TEXT_PROMPT, b"9" * 5000)),
}


@pytest.mark.parametrize(("method", "params"), INVALID_PARAMS.values(), ids=INVALID_PARAMS)
def test_params_that_do_not_fit(method: str, params: bytes) -> None:
    """Params of the wrong shape are refused under the request's id, with the method's name."""
    error = error_of(b'{"jsonrpc":"2.0","id":1,"method":"%s","params":%s}' % (method.encode(), params))

    assert (error.code, error.id) == (ErrorCode.INVALID_PARAMS, 1)
    assert error.message.startswith(method)


def test_refusal_of_params_names_the_field() -> None:
    """The error says where the wrong value is."""
    error = error_of(call(method="load", params={"model": 1, "cache_dir": "/"}))

    assert "$.model" in error.message


def test_unknown_method_lists_the_known() -> None:
    """An unknown method is answered with what there is."""
    error = error_of(call(method="dance"))

    assert (error.code, error.id) == (ErrorCode.METHOD_NOT_FOUND, 1)
    assert (
        "'dance'; known are: cache_clear, cache_list, cache_verify, count_tokens, forget, generate" in error.message
    )


def test_request_of_the_other_direction_is_unknown() -> None:
    """A dialect takes its own methods only."""
    assert error_of(call(method="generate"), DAEMON).code == ErrorCode.METHOD_NOT_FOUND


@pytest.mark.parametrize(
    "line",
    [
        call(method="m" * 1_000_000),
        call(jsonrpc="2" * 1_000_000),
        call(method="generate", params={"prompt": {"type": "t" * 1_000_000}}),
        call(id="i" * 1_000_000),
        b"\xff" * 1_000_000,
    ],
    ids=["method", "version", "tag", "id", "bytes"],
)
def test_refusal_is_short_however_long_the_message(line: bytes) -> None:
    """An error never quotes so much that it could outgrow the limit itself."""
    assert len(encode(error_of(line))) < 2000


@pytest.mark.parametrize(
    ("line", "answerable"),
    [
        (b"{", True),
        (call(method="dance"), True),
        (call(params=[]), True),
        (b'{"jsonrpc":"2.0","id":1}', True),
        (b'{"jsonrpc":"2.0","method":"dance"}', False),
        (b'{"jsonrpc":"2.0","method":"cancel","params":{}}', False),
        (b'{"jsonrpc":"2.0","id":1,"result":{"kind":"loaded"}}', False),
        (b'{"jsonrpc":"2.0","result":{}}', False),
        (b'{"jsonrpc":"2.0","id":2,"result":1,"error":{"code":1,"message":"m"}}', False),
    ],
)
def test_notifications_and_answers_are_never_answered(line: bytes, *, answerable: bool) -> None:
    """A wrong request is to be answered; a wrong notification or answer is not, as the specification demands."""
    frame = decode(line, WORKER)

    assert isinstance(frame, Malformed)
    assert frame.answerable is answerable


def test_unreadable_result() -> None:
    """A result that the dialect does not expect is malformed, under its request's id."""
    error = error_of(b'{"jsonrpc":"2.0","id":9,"result":{"kind":"surprise"}}', DAEMON)

    assert (error.id, error.code) == (9, ErrorCode.INVALID_PARAMS)
    assert "surprise" in error.message
