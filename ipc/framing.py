r"""Bytes to frames and back, without I/O: JSON-RPC 2.0, one UTF-8 line for each message.

The rules, where JSON-RPC leaves a choice:

* A line ends with ``\n`` (a ``\r`` before it is ignored) and is at most `LIMIT` bytes long. A longer one ends the
  connection (`FrameTooLong`): what follows could not be told from its rest. It is noticed as soon as the limit is
  passed, so nobody buffers more than the limit and one read.
* Params are an object (by name). Batches are refused: they have no use here, and no bound.
* An id is a 64-bit integer or a string of at most `ID_LIMIT` characters, so that every answer can carry it.
* A line that is wrong in itself becomes a `Malformed`, with the error to be sent back, and the next line is read
  as if nothing had been. A connection that ends inside a line is a `TruncatedFrame`.

Spec: https://www.jsonrpc.org/specification
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from .errors import ErrorCode, ErrorData
from .messages import Body, Id

LIMIT = 16 * 1024 * 1024
"""Longest line in bytes, its newline not counted."""

ID_LIMIT: Final = 128
"""Longest string id in characters."""

SHALLOW: Final = 200
"""A request with so many braces and brackets or fewer can't be nested too deeply."""

RESERVE: Final = 700
"""Calls, of the interpreter's 1,000, without which a request must be encodable: what can be encoded in the rest can
be decoded, copied and rendered by whoever is asked. A request holds what a stranger has nested; an end that could not
decode it would end the connection."""

_MESSAGE_LIMIT: Final = 500
"""Longest error message in characters: some quote what was sent, and an answer must not outgrow the limit."""


class ProtocolError(Exception):
    """The other end broke the protocol, and the connection can't go on.

    Tree: `ProtocolError` > `FrameTooLong`, `TruncatedFrame`, `UnexpectedFrame`.
    """


class FrameTooLong(ProtocolError):
    """A line exceeded the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"a message is longer than {limit} bytes, which is the limit; the connection is closed")


class TruncatedFrame(ProtocolError):
    """The stream ended inside a line."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the connection ended {size} bytes into a message, before its newline")


class UnexpectedFrame(ProtocolError):
    """A well-formed frame that has no place in the conversation."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call that wants an answer under `id`."""

    id: Id
    body: Body


@dataclass(frozen=True, slots=True)
class Notification:
    """A call that wants none."""

    body: Body


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a request: a struct; or, as received where the dialect names no results, raw JSON."""

    id: Id
    result: msgspec.Struct | msgspec.Raw


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """The refusal of a request; `id` is None where the request's own could not be read."""

    id: Id | None
    code: int
    message: str
    data: ErrorData = field(default_factory=ErrorData)


@dataclass(frozen=True, slots=True)
class Malformed:
    """A received line that is no frame of the dialect, and what to answer. `error.id` is None if it had no id."""

    error: ErrorResponse
    answerable: bool = True
    """False for a notification or an answer: the spec wants no response to these (sections 4.1, 5)."""


Frame: TypeAlias = Request | Notification | Response | ErrorResponse


class _WireError(msgspec.Struct):
    code: int
    message: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_WireId: TypeAlias = (
    Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, msgspec.Meta(max_length=ID_LIMIT)] | None
)


class _Envelope(msgspec.Struct):
    """Any JSON-RPC object; params, result and error stay raw until the method is known."""

    jsonrpc: Literal["2.0"]
    id: _WireId | msgspec.UnsetType = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _WireError | None | msgspec.UnsetType = msgspec.UNSET


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_ERROR_DATA = msgspec.json.Decoder(ErrorData)
_ENCODER = msgspec.json.Encoder()


class Dialect:
    """What one end of a connection understands: the bodies it takes, and the results it expects.

    Args:
        requests: Bodies that come with an id.
        notifications: Bodies that come without one.
        results: A tagged union of results; None leaves results raw for the asker to convert.
    """

    def __init__(
        self,
        *,
        requests: Iterable[type[Body]] = (),
        notifications: Iterable[type[Body]] = (),
        results: Any = None,
    ) -> None:
        self.requests: Mapping[str, msgspec.json.Decoder[Any]] = _decoders(requests)
        self.notifications: Mapping[str, msgspec.json.Decoder[Any]] = _decoders(notifications)
        self.results: msgspec.json.Decoder[Any] | None = msgspec.json.Decoder(results) if results else None


def _decoders(bodies: Iterable[type[Body]]) -> dict[str, msgspec.json.Decoder[Any]]:
    return {body.METHOD: msgspec.json.Decoder(body) for body in bodies}


class FrameDecoder:
    """Collects bytes and yields frames. One for each connection and direction.

    Args:
        dialect: What may come.
        limit: Longest line in bytes.
    """

    def __init__(self, dialect: Dialect, limit: int = LIMIT) -> None:
        self._dialect = dialect
        self._limit = limit
        self._rest = bytearray()

    @property
    def buffered(self) -> int:
        """Bytes of an unfinished line held now; never more than the limit plus one `feed`."""
        return len(self._rest)

    def feed(self, data: bytes) -> Iterator[Frame | Malformed]:
        """Take received bytes; yield each message that they complete.

        Raises:
            FrameTooLong: After yielding the complete lines before the one that is too long.
        """
        scanned = len(self._rest)
        self._rest += data
        start = 0
        while (end := self._rest.find(b"\n", max(start, scanned))) >= 0:
            if end - start > self._limit:
                break
            line = bytes(self._rest[start:end]).strip(b" \t\r")
            start = end + 1
            if line:
                yield decode(line, self._dialect)
        del self._rest[:start]
        if len(self._rest) > self._limit:
            self._rest.clear()
            raise FrameTooLong(self._limit)

    def end(self) -> None:
        """The stream ended.

        Raises:
            TruncatedFrame: If it ended inside a line.
        """
        if self._rest:
            raise TruncatedFrame(len(self._rest))


def decode(line: bytes, dialect: Dialect) -> Frame | Malformed:
    """Read one line, without its newline. Never raises: what is wrong with it becomes a `Malformed`."""
    try:
        line.decode()  # msgspec skips over what it doesn't need, right or wrong
        envelope = _ENVELOPE.decode(line)
    except msgspec.ValidationError as error:
        what = "batch requests are not supported" if line.startswith(b"[") else str(error)
        return _malformed(ErrorCode.INVALID_REQUEST, f"not a JSON-RPC 2.0 message: {what}", _rescue_id(line))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _malformed(ErrorCode.PARSE_ERROR, f"not a line of UTF-8 JSON: {error}")
    if envelope.method is msgspec.UNSET:
        return _answer(envelope, dialect)
    return _call(envelope.method, envelope, dialect)


def _call(method: str, envelope: _Envelope, dialect: Dialect) -> Frame | Malformed:
    if envelope.id is None:
        return _malformed(ErrorCode.INVALID_REQUEST, "null is not a request id; use a number or a string")
    is_request = envelope.id is not msgspec.UNSET
    request_id = None if envelope.id is msgspec.UNSET else envelope.id
    decoder = (dialect.requests if is_request else dialect.notifications).get(method)
    if decoder is None:
        message = _unknown(method, dialect, is_request=is_request)
        return _malformed(ErrorCode.METHOD_NOT_FOUND, message, request_id, answerable=is_request)
    params = b"{}" if envelope.params is msgspec.UNSET else bytes(envelope.params)
    try:
        body = decoder.decode(params)
    except (msgspec.DecodeError, RecursionError) as error:
        return _malformed(ErrorCode.INVALID_PARAMS, f"{method}: {error}", request_id, answerable=is_request)
    return Notification(body) if request_id is None else Request(request_id, body)


def _answer(envelope: _Envelope, dialect: Dialect) -> Frame | Malformed:
    has_error = isinstance(envelope.error, _WireError)
    request_id = None if envelope.id is msgspec.UNSET else envelope.id
    if (envelope.result is msgspec.UNSET) is not has_error:
        message = "expected a method, or a result, or an error object"
        return _malformed(ErrorCode.INVALID_REQUEST, message, request_id, answerable=not has_error)
    if isinstance(envelope.error, _WireError):
        error = envelope.error
        return ErrorResponse(request_id, error.code, error.message, _error_data(error.data))
    if request_id is None or envelope.result is msgspec.UNSET:
        return _malformed(ErrorCode.INVALID_REQUEST, "a result without the id of its request", answerable=False)
    if dialect.results is None:
        return Response(request_id, envelope.result)
    try:
        return Response(request_id, dialect.results.decode(envelope.result))
    except (msgspec.DecodeError, RecursionError) as error:
        return _malformed(ErrorCode.INVALID_PARAMS, f"unreadable result: {error}", request_id, answerable=False)


def _error_data(raw: msgspec.Raw | msgspec.UnsetType) -> ErrorData:
    if raw is msgspec.UNSET:
        return ErrorData()
    try:
        return _ERROR_DATA.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        # `data` may be anything (spec, section 5.1); what is not ours is not understood, and not needed.
        return ErrorData()


class _OnlyId(msgspec.Struct):
    id: _WireId = None


_ONLY_ID = msgspec.json.Decoder(_OnlyId)


def _rescue_id(line: bytes) -> Id | None:
    """The id of a message that is otherwise wrong, so that its sender can tell which one failed."""
    try:
        return _ONLY_ID.decode(line).id
    except (msgspec.DecodeError, RecursionError):
        return None  # no id to be had: the error goes back with null, as the spec says (section 5)


def _unknown(method: str, dialect: Dialect, *, is_request: bool) -> str:
    names = ", ".join(sorted(dialect.requests if is_request else dialect.notifications)) or "none"
    kind = "request" if is_request else "notification"
    return f"unknown {kind} {method[:80]!r}; known are: {names}"


def _malformed(code: ErrorCode, message: str, request_id: Id | None = None, *, answerable: bool = True) -> Malformed:
    if len(message) > _MESSAGE_LIMIT:
        message = message[:_MESSAGE_LIMIT] + "…"
    return Malformed(ErrorResponse(request_id, code, message), answerable)


def encode(frame: Frame) -> bytes:
    """One line, newline included.

    Raises:
        FrameTooLong: If the other end would refuse it.
        UnicodeEncodeError: If a string holds a lone surrogate, which UTF-8 can't carry.
        RecursionError: If it is nested so deeply that the other end might not be able to read it.
    """
    line = _ENCODER.encode(_wire(frame))
    if isinstance(frame, Request) and line.count(b"{") + line.count(b"[") > SHALLOW:
        _encode_with_little_stack(_wire(frame), RESERVE)
    if len(line) > LIMIT:
        raise FrameTooLong(LIMIT)
    return line + b"\n"


def _encode_with_little_stack(wire: dict[str, Any], calls: int) -> None:
    if calls:
        _encode_with_little_stack(wire, calls - 1)
    else:
        _ENCODER.encode(wire)


def _wire(frame: Frame) -> dict[str, Any]:
    match frame:
        case Request(id=request_id, body=body):
            return {"jsonrpc": "2.0", "id": request_id, "method": body.METHOD, "params": body}
        case Notification(body=body):
            return {"jsonrpc": "2.0", "method": body.METHOD, "params": body}
        case Response(id=request_id, result=result):
            return {"jsonrpc": "2.0", "id": request_id, "result": result}
        case ErrorResponse(id=request_id, code=code, message=message, data=data):
            error = {"code": int(code), "message": message, "data": data}
            return {"jsonrpc": "2.0", "id": request_id, "error": error}
