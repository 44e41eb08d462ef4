"""HTTP/1.1 beyond what the parser sees to: whatever could be read in two ways is refused before anything is done.

aiohttp's parser is strict by itself about where a message ends: two lengths, a length beside chunks, signs, spaces or
line feeds around chunk sizes, folded headers, control characters, missing or double `Host`. This is what it lets
through and we don't:

* versions other than 1.0 and 1.1; chunks in HTTP/1.0; codings beside `chunked`;
* a target in absolute form that names another host than `Host` does; a fragment; CONNECT;
* a content coding that it doesn't know, as if the body were plain.

It also lets through several spaces in the request line, empty lines before it, and chunk extensions of any length.
None of them moves the end of a message, and `BODY_TIMEOUT` bounds the last one, so these stay.
"""

from __future__ import annotations

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.typedefs import Handler

from .errors import ApiError

ENCODINGS = ("gzip", "deflate")
"""Content codings of request bodies. What comes out is bounded like a body that came plain."""

METHODS = "GET, HEAD, OPTIONS, POST"
"""What the server as a whole knows (`OPTIONS *`)."""


class BadFraming(ApiError):
    """Where the next request would begin can't be trusted; the connection ends with the answer."""


async def no_continue(_request: web.Request) -> None:
    """An `expect_handler` that does nothing: aiohttp's own says `100 Continue` before anybody was checked."""


def check_framing(request: web.Request) -> None:
    """Refuse what could be read in two ways.

    Raises:
        BadFraming: 400, 417, 501 or 505.
    """
    if request.version not in {HttpVersion10, HttpVersion11}:
        raise BadFraming(505, "This server speaks HTTP/1.1 and HTTP/1.0.", code="invalid_http")
    if request.method == hdrs.METH_CONNECT:
        raise BadFraming(501, "This server is no proxy: CONNECT is not supported.", code="method_not_allowed")
    _check_transfer(request)
    _check_target(request)
    expected = request.headers.get(hdrs.EXPECT)
    if expected is not None and expected.lower() != "100-continue":
        raise BadFraming(
            417, "`Expect` may only be `100-continue`; leave it out otherwise.", param="Expect", code="invalid_http"
        )


def _check_transfer(request: web.Request) -> None:
    codings = request.headers.getall(hdrs.TRANSFER_ENCODING, [])
    if codings and (request.version == HttpVersion10 or [coding.lower() for coding in codings] != ["chunked"]):
        raise BadFraming(
            501 if request.version == HttpVersion11 else 400,
            "`Transfer-Encoding` may only be `chunked`, in HTTP/1.1.",
            param="Transfer-Encoding",
            code="invalid_http",
        )


def _check_target(request: web.Request) -> None:
    target = request.raw_path
    if "#" in target:
        raise BadFraming(400, "A request's target has no fragment (`#`).", code="invalid_http")
    if target.startswith("/") or target == "*":
        return
    authority = target.partition("://")[2].partition("/")[0].partition("?")[0]
    if authority.lower() != request.headers.get(hdrs.HOST, "").lower():
        raise BadFraming(400, "The target and `Host` name different hosts.", param="Host", code="invalid_host")


def check_encoding(request: web.Request) -> None:
    """Refuse a body in a coding that we can't read.

    Raises:
        ApiError: 415.
    """
    codings = [coding.lower() for coding in request.headers.getall(hdrs.CONTENT_ENCODING, [])]
    if codings not in ([], ["identity"], *([known] for known in ENCODINGS)):
        raise unknown_encoding()


def unknown_encoding() -> ApiError:
    """A body is in a content coding that this server can't read."""
    known = ", ".join(ENCODINGS)
    return ApiError(
        415,
        f"A body may be plain, or in one of these codings: {known} (`Content-Encoding`).",
        param="Content-Encoding",
        code="unsupported_encoding",
        headers={"Accept-Encoding": known},
    )


@web.middleware
async def before_the_handler(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The innermost middleware: answers OPTIONS, and gives leave to send the body to whoever waits for it."""
    if request.method == hdrs.METH_OPTIONS:
        return web.Response(status=204, headers={"Allow": allowed_methods(request)})
    if _waits(request):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun
    return await handler(request)


def _waits(request: web.Request) -> bool:
    expects = request.version == HttpVersion11 and hdrs.EXPECT in request.headers
    return expects and request.can_read_body and request.match_info.http_exception is None


def allowed_methods(request: web.Request) -> str:
    """What `Allow` says of the requested path.

    Raises:
        HTTPNotFound: If there is nothing.
    """
    if request.raw_path == "*":
        return METHODS
    problem = request.match_info.http_exception
    if isinstance(problem, web.HTTPMethodNotAllowed):
        return ", ".join(sorted({*problem.allowed_methods, hdrs.METH_OPTIONS}))
    raise problem or web.HTTPNotFound
