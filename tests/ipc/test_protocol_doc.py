"""`docs/protocol.md` says what the code does: its tables, its numbers and every line of its examples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import anyio
import msgspec
import pytest
from msgspec import inspect

from stoker.daemon import control, link
from stoker.ipc import control_messages, control_requests, messages
from stoker.ipc.channel import SEND_TIMEOUT, Channel
from stoker.ipc.control_messages import Changed, Document
from stoker.ipc.control_requests import CONTROL_REQUESTS
from stoker.ipc.errors import FATAL, RETRYABLE, ErrorCode
from stoker.ipc.framing import (
    ID_LIMIT,
    LIMIT,
    Dialect,
    ErrorResponse,
    Frame,
    Malformed,
    Notification,
    Request,
    Response,
    decode,
    encode,
)
from stoker.ipc.messages import PROTOCOL_VERSION, Body
from stoker.ipc.unix_stream import connect_unix
from stoker.worker import session
from tests.fakes import wire_strategies as wire
from tests.fakes.dialects import DAEMON, WORKER
from tests.fakes.fake_daemon import FakeDaemon
from tests.fakes.fake_steward import FakeSteward, served

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
SERVER, CLIENT = Dialect(requests=CONTROL_REQUESTS), Dialect(notifications=[Changed])
DIALECTS = {
    "worker": {"->": WORKER, "<-": DAEMON},
    "control": {"->": SERVER, "<-": CLIENT},
}
TO_WORKER: tuple[type[Body], ...] = get_args(messages.ToWorker)
FROM_WORKER = (messages.Hello, messages.Progress, messages.Step, messages.WarmedLater)
STRUCTS: dict[str, type[msgspec.Struct]] = {
    name: value
    for module in (messages, control_requests, control_messages)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__struct_fields__
}


# -- reading the document ----------------------------------------------------------------------------------


def table_after(heading: str) -> list[list[str]]:
    """The cells of the first table after a line, without its head."""
    start = TEXT.index(f"\n{heading}\n")
    match = re.compile(r"\n((?:\|.*\n)+)").search(TEXT, start)
    assert match is not None, heading
    rows = match[1].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


@dataclass(frozen=True)
class Example:
    """A line of an example: where it goes, and what the block has asked for before it."""

    block: str
    direction: str
    line: str
    asked: dict[object, str]


def examples(kind: str) -> Iterator[list[Example]]:
    """The blocks of a kind, line by line."""
    for block in re.findall(rf"```json {kind}\n(.*?)```", TEXT, re.DOTALL):
        asked: dict[object, str] = {}
        lines = []
        for text in block.splitlines():
            direction, line = text.split(" ", 1)
            lines.append(Example(block, direction, line, asked))
            call = msgspec.json.decode(line) if kind != "bad" else {}
            if "method" in call and "id" in call:
                asked[call["id"]] = call["method"]
        yield lines


# -- how types are written for readers of other languages --------------------------------------------------


def described(info: inspect.Type) -> str:
    """A type in words that need no Python."""
    match info:
        case inspect.UnionType(types=types):
            return " or ".join(map(described, types))
        case inspect.LiteralType(values=values):
            return " or ".join(sorted(f'"{value}"' for value in values))
        case inspect.VarTupleType(item_type=item):
            return f"array of {described(item)}"
        case inspect.DictType(value_type=value):
            return "object" if isinstance(value, inspect.AnyType) else f"object of {described(value)}"
        case inspect.StructType(cls=cls):
            return cls.__name__
    return _WORDS[type(info)]


_WORDS: dict[type, str] = {
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.StrType: "string",
    inspect.BoolType: "boolean",
    inspect.NoneType: "null",
    inspect.AnyType: "any",
}


def default_of(field: inspect.Field) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return msgspec.json.encode(value).decode()


def rows_of(struct: type[msgspec.Struct]) -> list[list[str]]:
    return [[field.encode_name, described(field.type), default_of(field)] for field in wire.fields_of(struct)]


# -- tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRUCTS)
def test_field_table(name: str) -> None:
    """Each type with fields has a table of all of them, in order, with type, default and meaning."""
    expected = rows_of(STRUCTS[name])
    if name == "StatusReport":  # "all of Readiness, and"
        expected = expected[len(control_messages.Readiness.__struct_fields__) :]

    rows = table_after(f"<!-- fields: {name} -->")

    assert [row[:3] for row in rows] == expected
    assert all(row[3] for row in rows)


def test_table_of_errors() -> None:
    """The errors are all there, each with its code, and whether another try or a restart may help."""
    rows = table_after("<!-- errors -->")

    assert [(row[0], row[1]) for row in rows] == [(str(int(code)), code.name) for code in ErrorCode]
    assert [row[2] for row in rows] == ["yes" if code in RETRYABLE else "" for code in ErrorCode]
    assert [row[3] for row in rows] == ["yes" if code in FATAL else "" for code in ErrorCode]


def test_table_of_limits() -> None:
    """The numbers of the document are those of the code."""
    numbers = {row[0]: re.sub(r"(?<=\d),", "", row[1]) for row in table_after("<!-- limits -->")}

    assert numbers == {
        "line": f"{LIMIT} bytes",
        "string id": f"{ID_LIMIT} characters",
        "integer id": "64 bits, signed",
        "sending one message": f"{SEND_TIMEOUT:g} seconds",
        "unanswered requests of the worker socket": str(session.MOST_OPEN),
        "connections to the control socket": str(control.CONNECTIONS_LIMIT),
        "unanswered requests of a control connection": str(control.IN_FLIGHT_LIMIT),
    }


@pytest.mark.parametrize(
    ("heading", "bodies"),
    [
        ("<!-- methods: to the worker -->", TO_WORKER),
        ("<!-- methods: from the worker -->", FROM_WORKER),
        ("<!-- methods: control -->", (*CONTROL_REQUESTS, Changed)),
    ],
)
def test_table_of_methods(heading: str, bodies: tuple[type[Body], ...]) -> None:
    """Each method is listed, in the order of the code, and nothing else is."""
    assert [row[0] for row in table_after(heading)] == [body.METHOD for body in bodies]


@pytest.mark.parametrize(("ours", "product"), [(WORKER, session.DIALECT), (DAEMON, link.FROM_WORKER)])
def test_both_ends_speak_these_dialects(ours: Dialect, product: Dialect) -> None:
    """The dialects that the examples are read with are those of daemon and worker."""
    assert set(ours.requests) == set(product.requests)
    assert set(ours.notifications) == set(product.notifications)
    assert ours.results is not None
    assert product.results is not None
    assert ours.results.type == product.results.type


def test_protocol_version() -> None:
    """The document is about the version that is spoken."""
    assert f"version {PROTOCOL_VERSION} of the worker protocol" in TEXT


# -- examples ----------------------------------------------------------------------------------------------

GOOD = [(kind, example) for kind in DIALECTS for block in examples(kind) for example in block]


def result_types() -> dict[str, type[Document]]:
    """Which result answers which control method, as the document's table says."""
    rows = table_after("<!-- methods: control -->")
    return {row[0]: getattr(control_messages, row[2]) for row in rows if row[2]}


def misspelt(written: Any, meant: Any) -> list[str]:
    """Keys of an example that its type does not have, at any depth: a reader would ignore them."""
    if isinstance(meant, tuple):
        return [key for pair in zip(written, meant, strict=True) for key in misspelt(*pair)]
    if not isinstance(meant, msgspec.Struct):
        return []
    known = {key: value for key, value in written.items() if key in meant.__struct_fields__}
    unknown = set(written) - set(known) - {meant.__struct_config__.tag_field}
    return [*unknown, *(found for key, value in known.items() for found in misspelt(value, getattr(meant, key)))]


@pytest.mark.parametrize(("kind", "example"), GOOD, ids=[example.line[:60] for _, example in GOOD])
def test_example_line(kind: str, example: Example) -> None:
    """Each line of an example is a message of its direction, and an answer is one to what was asked."""
    frame = decode(example.line.encode(), DIALECTS[kind][example.direction])

    assert not isinstance(frame, Malformed), frame
    if isinstance(frame, Response | ErrorResponse) and frame.id is not None:
        assert frame.id in {*example.asked, 0}
    if isinstance(frame, Response) and isinstance(frame.result, msgspec.Raw):
        frame = Response(frame.id, msgspec.json.decode(frame.result, type=result_types()[example.asked[frame.id]]))
    if not isinstance(frame, ErrorResponse):
        line = msgspec.json.decode(example.line)
        meant = frame.result if isinstance(frame, Response) else frame.body
        assert misspelt(line.get("result", line.get("params", {})), meant) == []


@pytest.mark.parametrize("block", list(examples("bad")), ids=lambda block: block[0].line[:40])
def test_example_of_a_bad_line(block: list[Example]) -> None:
    """A bad line is answered exactly as the document shows."""
    bad, *answers = block
    frame = decode(bad.line.encode(), SERVER)

    assert isinstance(frame, Malformed)
    assert frame.answerable is bool(answers)
    for answer in answers:
        assert msgspec.json.decode(encode(frame.error)) == msgspec.json.decode(answer.line)


@pytest.mark.parametrize("body", [*TO_WORKER, *FROM_WORKER, *CONTROL_REQUESTS, Changed])
def test_each_method_has_an_example(body: type[Body]) -> None:
    """No method goes without a line that shows it."""
    assert any(f'"method":"{body.METHOD}"' in example.line for _, example in GOOD)


@pytest.mark.parametrize(
    "kind", ["welcome", "loaded", "warmed", "finished", "tokencount", "figures", "prefixlist", "noted", "speed"]
)
def test_each_result_has_an_example(kind: str) -> None:
    """No result of the worker socket goes without a line that shows it."""
    assert any(f'"kind":"{kind}"' in example.line for _, example in GOOD)


def test_requests_of_examples_are_answered() -> None:
    """An example leaves no request open, except where the text is about giving one up."""
    for kind, example in GOOD:
        frame = decode(example.line.encode(), DIALECTS[kind][example.direction])
        if isinstance(frame, Request):
            assert re.search(rf'"id":{frame.id},"(result|error)"', example.block), example.line


def gist(frame: Frame | Malformed) -> tuple[object, ...]:
    """What a frame is and whom it concerns, without its figures."""
    match frame:
        case Request(id=request_id, body=body):
            return (type(body), request_id)
        case Notification(body=messages.Step(deltas=deltas)):
            return (messages.Step, *(delta.target for delta in deltas))
        case Notification(body=messages.Progress(target=target, stage=stage)):
            return (stage, target)
        case Response(id=request_id, result=result):
            return (type(result), request_id)
    return (frame,)


def test_whole_life_is_what_a_worker_does() -> None:
    """Played to a worker line by line, the example of a whole life gets the answers that it shows."""
    daemon = FakeDaemon({"generate": {"prefill": {"steps": 1}}})
    try:
        for example in next(examples("worker")):
            if example.direction == "->":
                daemon.socket.sendall(example.line.encode() + b"\n")
            else:
                assert gist(next(daemon.frames)) == gist(decode(example.line.encode(), DAEMON))
    finally:
        daemon.close()


@pytest.mark.anyio
async def test_control_requests_are_answered_by_the_daemon() -> None:
    """Sent to a real control socket, each request of the examples gets the result that the table names."""
    requests = [example.line for block in examples("control") for example in block if example.direction == "->"]

    async with served(FakeSteward()) as path:
        for line in requests:
            call = msgspec.json.decode(line)
            with anyio.fail_after(10):
                async with Channel(stream := await connect_unix(path), CLIENT) as channel:
                    await stream.send(line.encode() + b"\n")
                    answer = await channel.receive()
            assert isinstance(answer, Response)
            assert isinstance(answer.result, msgspec.Raw)
            assert answer.id == call["id"]
            msgspec.json.decode(answer.result, type=result_types()[call["method"]])
