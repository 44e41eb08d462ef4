"""Bytes to frames and back: whatever comes, in whatever pieces."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.ipc.errors import ErrorData
from stoker.ipc.framing import (
    LIMIT,
    Dialect,
    ErrorResponse,
    Frame,
    FrameDecoder,
    FrameTooLong,
    Malformed,
    Notification,
    Request,
    Response,
    TruncatedFrame,
    decode,
    encode,
)
from stoker.ipc.messages import (
    Cancel,
    Figures,
    Finished,
    Generate,
    Hello,
    Load,
    Loaded,
    Progress,
    Statistics,
    Step,
    TextPrompt,
    Warm,
    Warmed,
    WarmedLater,
    Welcome,
)
from tests.fakes import wire_strategies as wire
from tests.fakes.dialects import CLIENT, DAEMON, WORKER

TO_WORKER = (
    wire.requests(Load, Warm, Generate, Statistics)
    | wire.notifications(Cancel)
    | wire.responses(Welcome)
    | wire.errors()
)
TO_DAEMON = (
    wire.requests(Hello)
    | wire.notifications(Progress, Step, WarmedLater)
    | wire.responses(Loaded | Warmed | Finished | Figures)
    | wire.errors()
)


def feed_all(decoder: FrameDecoder, pieces: Iterable[bytes]) -> list[Frame | Malformed]:
    return [frame for piece in pieces for frame in decoder.feed(piece)]


def error_of(line: bytes, dialect: Dialect = WORKER) -> ErrorResponse:
    frame = decode(line, dialect)
    assert isinstance(frame, Malformed)
    return frame.error


def call(**members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "statistics", **members}).encode()


# -- round trips and splits --------------------------------------------------------------------------------


@given(TO_WORKER)
def test_round_trip_to_the_worker(frame: Frame) -> None:
    """Each frame that the daemon may send is read by the worker as it was."""
    line = encode(frame)

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line[:-1], WORKER) == frame


@given(TO_DAEMON)
def test_round_trip_to_the_daemon(frame: Frame) -> None:
    """Each frame that the worker may send is read by the daemon as it was."""
    assert decode(encode(frame)[:-1], DAEMON) == frame


@given(st.lists(TO_DAEMON, max_size=4))
def test_stream_cut_at_any_one_point(frames: list[Frame]) -> None:
    """Two pieces give the same frames wherever the stream is cut."""
    stream = b"".join(map(encode, frames))

    for point in range(len(stream) + 1):
        decoder = FrameDecoder(DAEMON)
        assert feed_all(decoder, [stream[:point], stream[point:]]) == frames
        decoder.end()


@given(st.lists(TO_DAEMON, min_size=1, max_size=5), st.data())
def test_stream_cut_into_any_pieces(frames: list[Frame], data: st.DataObject) -> None:
    """Any number of pieces, empty ones too, gives the same frames."""
    stream = b"".join(map(encode, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    pieces = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]

    assert feed_all(FrameDecoder(DAEMON), pieces) == frames


@given(TO_DAEMON)
def test_stream_byte_by_byte(frame: Frame) -> None:
    """A frame that trickles in is complete with its newline and not before."""
    decoder = FrameDecoder(DAEMON)
    *most, last = (bytes([byte]) for byte in encode(frame))

    assert feed_all(decoder, most) == []
    assert feed_all(decoder, [last]) == [frame]


# -- what is tolerated -------------------------------------------------------------------------------------


def test_result_stays_raw_where_the_dialect_names_none() -> None:
    """A client converts results itself: it knows what it asked for."""
    frame = decode(b'{"jsonrpc":"2.0","id":1,"result":{"ready": true}}', CLIENT)

    assert isinstance(frame, Response)
    assert isinstance(frame.result, msgspec.Raw)
    assert msgspec.json.decode(frame.result) == {"ready": True}


def test_null_error_beside_a_result_is_an_answer() -> None:
    """JSON-RPC 1.0 clients send both members; a null error counts as none."""
    frame = decode(b'{"jsonrpc":"2.0","id":1,"result":{},"error":null}', CLIENT)

    assert isinstance(frame, Response)


def test_error_without_an_id_is_an_error_response() -> None:
    """The answer to an unreadable request comes with a null id, or none."""
    for line in (
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"m"}}',
        b'{"jsonrpc":"2.0","error":{"code":-32700,"message":"m"}}',
    ):
        assert decode(line, CLIENT) == ErrorResponse(None, -32700, "m")


@pytest.mark.parametrize("data", ["text", 7, [1], {"retryable": "perhaps"}, None])
def test_foreign_error_data_is_ignored(data: object) -> None:
    """The data member of an error may be anything; what is not ours is dropped."""
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "m", "data": data}}).encode()

    assert decode(line, CLIENT) == ErrorResponse(1, 1, "m", ErrorData())


def test_unknown_members_and_fields_are_ignored() -> None:
    """A newer peer may say more than we know."""
    assert decode(call(params={"later": 1}, later=2), WORKER) == Request(1, Statistics())


def test_params_may_be_left_out() -> None:
    """A method without required fields needs no params."""
    assert decode(b'{"jsonrpc":"2.0","id":"a","method":"statistics"}', WORKER) == Request("a", Statistics())


def test_of_a_duplicated_key_the_last_counts() -> None:
    """Duplicated keys are read as most JSON readers do."""
    line = b'{"jsonrpc":"2.0","id":1,"id":2,"method":"statistics"}'

    assert decode(line, WORKER) == Request(2, Statistics())


@pytest.mark.parametrize("depth", range(900, 1010, 10))
@pytest.mark.parametrize("member", ["params", "result", "error"])
def test_nesting_around_the_recursion_limit(member: str, depth: int) -> None:
    """Deep nesting is read or refused, and raises nothing, on either side of the interpreter's limit."""
    deep = b'{"x":' * depth + b"1" + b"}" * depth
    value = {
        "params": b'"method":"generate","params":{"prompt":{"type":"chat","messages":[%s]}}',
        "result": b'"result":%s',
        "error": b'"error":{"code":1,"message":"m","data":%s}',
    }[member]

    frame = decode(b'{"jsonrpc":"2.0","id":1,' + value % deep + b"}", WORKER)

    assert not isinstance(frame, Notification)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b" \t\n"])
def test_line_endings_and_blank_lines(ending: bytes) -> None:
    """Carriage returns, trailing blanks and empty lines make no difference."""
    stream = ending + call() + ending + ending + call() + ending

    assert feed_all(FrameDecoder(WORKER), [stream]) == [Request(1, Statistics())] * 2


def test_bad_line_does_not_spoil_the_next() -> None:
    """After a malformed line the connection goes on."""
    frames = feed_all(FrameDecoder(WORKER), [b"nonsense\n" + call() + b"\n"])

    assert isinstance(frames[0], Malformed)
    assert frames[1:] == [Request(1, Statistics())]


# -- limits ------------------------------------------------------------------------------------------------


def test_line_of_exactly_the_limit_is_read() -> None:
    """The limit itself is allowed, its newline not counted."""
    line = call()

    assert feed_all(FrameDecoder(WORKER, limit=len(line)), [line + b"\n"]) == [Request(1, Statistics())]


@pytest.mark.parametrize("end", [b"", b"\n", b"\n" + call() + b"\n"])
def test_line_over_the_limit(end: bytes) -> None:
    """One byte more is refused, whether or not the newline has come."""
    line = call()
    decoder = FrameDecoder(WORKER, limit=len(line) - 1)

    with pytest.raises(FrameTooLong, match=str(len(line) - 1)):
        feed_all(decoder, [line + end])
    assert decoder.buffered == 0


def test_good_lines_before_a_long_one_are_delivered() -> None:
    """What came whole before the long line is not lost with it."""
    got: deque[Frame | Malformed] = deque()
    frames = FrameDecoder(WORKER, limit=100).feed(call() + b"\n" + b"x" * 101)

    with pytest.raises(FrameTooLong):
        got.extend(frames)
    assert list(got) == [Request(1, Statistics())]


def test_endless_line_is_refused_before_it_is_stored() -> None:
    """A line without end costs the limit and one read of memory, and no more."""
    reads = 0

    def endless() -> Iterator[bytes]:
        nonlocal reads
        while True:
            reads += 1
            yield b"x" * 65536

    tracemalloc.start()
    with pytest.raises(FrameTooLong):
        feed_all(FrameDecoder(WORKER), endless())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reads == LIMIT // 65536 + 1
    assert peak < 1.5 * LIMIT


@given(st.lists(st.binary(max_size=60).map(lambda piece: piece.replace(b"\n", b"")), max_size=10))
def test_buffer_is_bounded(pieces: list[bytes]) -> None:
    """The decoder holds at most the limit between two reads."""
    decoder = FrameDecoder(WORKER, limit=50)

    for piece in pieces:
        try:
            list(decoder.feed(piece))
        except FrameTooLong:
            break
        assert decoder.buffered <= 50


def test_long_line_in_small_pieces_takes_linear_time() -> None:
    """Each byte is looked at once: two megabytes in tiny pieces is done in a moment."""
    decoder = FrameDecoder(WORKER)
    line = call(params={"x": "y" * 2_000_000}) + b"\n"
    began = time.process_time()

    frames = feed_all(decoder, (line[index : index + 8] for index in range(0, len(line), 8)))

    assert frames == [Request(1, Statistics())]
    assert (
        time.process_time() - began < 5.0
    )  # a fraction of it; with a new look at the whole for each piece, half a minute


def test_stream_that_ends_inside_a_line() -> None:
    """An end inside a line is told apart from one between two lines."""
    decoder = FrameDecoder(WORKER)
    feed_all(decoder, [call() + b"\n" + b'{"json'])

    with pytest.raises(TruncatedFrame, match="6 bytes"):
        decoder.end()


def test_stream_that_ends_between_lines() -> None:
    """An end after a newline is in order."""
    decoder = FrameDecoder(WORKER)
    feed_all(decoder, [call() + b"\n"])

    decoder.end()


# -- sending -----------------------------------------------------------------------------------------------


def test_frame_over_the_limit_is_not_encoded() -> None:
    """What the other end would refuse is refused here, before a byte is sent."""
    with pytest.raises(FrameTooLong):
        encode(Request(1, Generate(prompt=TextPrompt(text="x" * LIMIT))))


def test_newlines_in_text_are_escaped() -> None:
    """Text with line ends stays on one line."""
    frame = Request(1, Generate(prompt=TextPrompt(text="a\nb\r\n\u2028")))

    assert encode(frame).count(b"\n") == 1
    assert feed_all(FrameDecoder(WORKER), [encode(frame)]) == [frame]


def test_lone_surrogate_is_not_encoded() -> None:
    """A string that UTF-8 cannot carry is the caller's mistake, and told."""
    with pytest.raises(UnicodeEncodeError):
        encode(Notification(Cancel(target="\ud800")))


def test_result_as_received_can_be_passed_on() -> None:
    """A raw result is encoded as it came."""
    frame = decode(b'{"jsonrpc":"2.0","id":1,"result":{"a": 1}}', CLIENT)
    assert isinstance(frame, Response)

    assert encode(frame) == b'{"jsonrpc":"2.0","id":1,"result":{"a": 1}}\n'
