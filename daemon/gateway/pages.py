"""What the daemon says about itself: liveness, readiness, status, and a page for people.

Liveness, readiness and progress are three answers: `/livez` is 200 as long as this process answers, `/readyz` only
while requests are served at once, `/status` tells the rest.
"""

from __future__ import annotations

import html
from string import Template

import msgspec
from aiohttp import hdrs, web

from ..metrics import CONTENT_TYPE
from .backend import Backend
from .errors import whole_seconds
from .keys import may_ask
from .page.assets import Assets, template
from .page.words import Headline, headline

_NO_STORE = {"Cache-Control": "no-store"}
_PAGE_HEADERS = {
    **_NO_STORE,
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
LOCKED = Headline("Locked", "This daemon was configured with API keys.", "idle")


class Life(msgspec.Struct, frozen=True):
    """That it comes at all is the news."""

    live: bool = True


class Pages:
    """The pages, over one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._assets = Assets()
        self._template = Template(template())

    def routes(self) -> list[web.RouteDef]:
        """Where the pages are."""
        return [
            web.get("/", self.front),
            web.get("/livez", self.live),
            web.get("/readyz", self.ready),
            web.get("/status", self.status),
            web.get("/metrics", self.metrics),
            web.get("/assets/{name}", self._assets.serve),
        ]

    async def live(self, _request: web.Request) -> web.Response:
        """200, always."""
        return _state(Life())

    async def ready(self, _request: web.Request) -> web.Response:
        """The readiness snapshot: 200 if ready, else 503 and when to ask again."""
        readiness = self._backend.board.current
        if readiness.ready:
            return _state(readiness)
        response = _state(readiness, status=503)
        response.headers["Retry-After"] = whole_seconds(readiness.retry_after)
        return response

    async def status(self, _request: web.Request) -> web.Response:
        """Everything that `stoker status` shows."""
        return _state(await self._backend.status())

    async def metrics(self, _request: web.Request) -> web.Response:
        """For Prometheus; costs nothing until it is asked."""
        body = self._backend.insight.metrics.exposition(await self._backend.status())
        return web.Response(body=body, headers={**_NO_STORE, hdrs.CONTENT_TYPE: CONTENT_TYPE})

    async def front(self, request: web.Request) -> web.Response:
        """A page for whoever opens the address in a browser. Its script asks for all else, and for a key."""
        known = may_ask(self._backend.access, request)
        words = headline(self._backend.board.current) if known else LOCKED
        fields = {
            "title": words.title,
            "detail": words.detail,
            "tone": words.tone,
            "model": self._backend.models.id if known else "not told",
            "base": f"http://{request.host}",
        }
        text = self._template.substitute({name: html.escape(value) for name, value in fields.items()})
        return web.Response(text=text, content_type="text/html", headers=_PAGE_HEADERS)


def _state(document: msgspec.Struct, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode(document),
        content_type="application/json",
        headers=_NO_STORE,
    )
