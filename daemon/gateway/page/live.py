"""What the status page's script asks for: the stream of events, and the two actions.

An action needs more than being let in: it must come from our own page, by `Origin` and by the token that the stream
told it. Other sites' pages can't read that stream, and not even an allowed origin's page may act.
"""

from __future__ import annotations

import hmac
import secrets
from contextlib import suppress

import msgspec
from aiohttp import web

from ....ipc.control_messages import Accepted
from ...steward import Refusal
from ..backend import Backend
from ..errors import ApiError
from ..guard import urlsplit_netloc
from ..sse import HEADERS
from .feed import Feed

TOKEN_HEADER = "X-Stoker-Token"  # noqa: S105 - its name, not its value
NO_STORE = {"Cache-Control": "no-store"}


class LivePage:
    """Events and actions, over one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._token = secrets.token_urlsafe(24)
        self.feed = Feed(backend, self._token)

    def routes(self) -> list[web.RouteDef]:
        """Where they are."""
        return [
            web.get("/events", self.events),
            web.post("/actions/rewarm", self.rewarm),
            web.post("/actions/restart", self.restart),
        ]

    async def close(self, _app: web.Application) -> None:
        """An `on_shutdown` signal: open streams would hold the daemon's end up."""
        await self.feed.close()

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events until the viewer leaves, or doesn't read."""
        check_same_origin(request)
        response = web.StreamResponse(headers={**HEADERS, **NO_STORE})
        if request.method == "HEAD":
            return web.Response(headers=response.headers)
        transport = request.transport
        viewer, first = await self.feed.join(lambda: transport.abort() if transport else None)
        try:
            await response.prepare(request)
            with suppress(ConnectionError):  # the viewer left; nobody is to be told
                await response.write(first)
                async for event in viewer.events():
                    await response.write(event)
        finally:
            self.feed.leave(viewer)
        return response

    async def rewarm(self, request: web.Request) -> web.Response:
        """Warm again; answered when it is done."""
        self._check(request)
        try:
            report = await self._backend.rewarm(())
        except Refusal as refusal:
            raise _refused(refusal) from refusal
        return _answer(report)

    async def restart(self, request: web.Request) -> web.Response:
        """Replace the worker; answered when that is under way."""
        self._check(request)
        try:
            await self._backend.restart(cold=False)
        except Refusal as refusal:
            raise _refused(refusal) from refusal
        return _answer(Accepted())

    def _check(self, request: web.Request) -> None:
        check_same_origin(request)
        given = request.headers.get(TOKEN_HEADER, "").encode(errors="surrogateescape")
        if not hmac.compare_digest(given, self._token.encode()):
            raise ApiError(
                403,
                f"This action needs the status page's token in `{TOKEN_HEADER}`; programs use the control socket: "
                "`stoker rewarm`, `stoker restart`.",
                code="invalid_token",
            )


def check_same_origin(request: web.Request) -> None:
    """Refuse what a browser says was begun by a page that is not ours.

    Raises:
        ApiError: 403.
    """
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    origins = request.headers.getall("Origin", [])
    if site not in {"same-origin", "none"} or any(urlsplit_netloc(origin) != request.host for origin in origins):
        raise ApiError(403, "Only the status page itself may ask for this.", code="foreign_origin")


def _refused(refusal: Refusal) -> ApiError:
    remedy = f"; {refusal.remedy}" if refusal.remedy else ""
    return ApiError(409, f"{refusal.message}{remedy}", code="refused")


def _answer(document: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json", headers=NO_STORE)
