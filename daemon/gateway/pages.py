"""What the daemon says about itself: liveness, readiness, status, and a page for people.

Liveness, readiness and progress are three answers: `/livez` is 200 as long as this process answers, `/readyz` only
while requests are served at once, `/status` tells the rest.
"""

from __future__ import annotations

import html

import msgspec
from aiohttp import web

from ...ipc.control_messages import Readiness
from .backend import Backend
from .errors import whole_seconds

_NO_STORE = {"Cache-Control": "no-store"}
_PAGE_HEADERS = {
    **_NO_STORE,
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Stoker: {phase}</title>
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }}</style>
<h1>Stoker</h1>
<p>Phase: <strong>{phase}</strong>{warm}{reason}</p>
<p>Model: {model}</p>
<p>Send OpenAI requests to <code>{base}/v1</code>, and Anthropic's to <code>{base}</code>.</p>
<ul>
<li><code>POST /v1/chat/completions</code>
<li><code>POST /v1/messages</code>
<li><a href="/v1/models"><code>GET /v1/models</code></a>
<li><a href="/status"><code>GET /status</code></a>
<li><a href="/readyz"><code>GET /readyz</code></a>
<li><a href="/livez"><code>GET /livez</code></a>
</ul>
"""


class Life(msgspec.Struct, frozen=True):
    """That it comes at all is the news."""

    live: bool = True


class Pages:
    """The pages, over one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        """Where the pages are."""
        return [
            web.get("/", self.front),
            web.get("/livez", self.live),
            web.get("/readyz", self.ready),
            web.get("/status", self.status),
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

    async def front(self, request: web.Request) -> web.Response:
        """A page for whoever opens the address in a browser."""
        text = _page(self._backend.board.current, self._backend.models.id, f"http://{request.host}")
        return web.Response(text=text, content_type="text/html", headers=_PAGE_HEADERS)


def _state(document: msgspec.Struct, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode(document),
        content_type="application/json",
        headers=_NO_STORE,
    )


def _page(readiness: Readiness, model: str | None, base: str) -> str:
    return _PAGE.format(
        phase=html.escape(readiness.phase),
        warm=", warm" if readiness.warm else "",
        reason=f" ({html.escape(readiness.reason)})" if readiness.reason else "",
        model=html.escape(model or "none loaded yet"),
        base=html.escape(base),
    )
