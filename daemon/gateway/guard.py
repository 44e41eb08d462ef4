"""Who may talk to a server, whether or not it has keys: programs, and only those web pages that are configured.

A page that the user visits can make the browser send requests to 127.0.0.1. Its `Origin` gives it away; and where
it hides behind a name of its own that suddenly resolves to 127.0.0.1 (DNS rebinding), its `Host` does.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from aiohttp import HttpVersion10, web
from aiohttp.typedefs import Handler, Middleware

from .errors import ApiError

_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\s:/@\[\]]+))(?::\d{0,5})?")

REMEMBERED = 64
"""Hosts whose verdict is kept: a client says the same one with every request."""


class Guard:
    """Decides by `Host` and `Origin`.

    Args:
        host: What the server is bound to. A wildcard (`0.0.0.0`, `::`) also allows every IP address, which no
            rebinding can forge, and this machine's own name.
        origins: Further origins that are let in, exactly as browsers send them.
    """

    def __init__(self, host: str, origins: Collection[str] = ()) -> None:
        self._origins = frozenset(origins)
        bound = _address(host)
        self._any_address = bound is not None and bound.is_unspecified
        own = socket.gethostname().lower()
        self._is_ours = lru_cache(REMEMBERED)(self._check_name)
        self._names = {host.lower(), *({own, f"{own}.local"} if self._any_address else ())}

    def check(self, request: web.Request) -> None:
        """Let the request pass.

        Raises:
            ApiError: 400 without one `Host`, 403 for a foreign one or a foreign `Origin`.
        """
        self._check_host(request)
        for origin in request.headers.getall("Origin", []):
            if origin not in self._origins and not self._is_ours(urlsplit_netloc(origin)):
                raise ApiError(
                    403,
                    "Requests from other sites' web pages are refused (`Origin`), except from `allowed_origins`.",
                    code="foreign_origin",
                )

    def _check_host(self, request: web.Request) -> None:
        hosts = request.headers.getall("Host", [])
        if not hosts and request.version <= HttpVersion10:
            return  # older probes send none; browsers always do
        if len(hosts) != 1:
            raise ApiError(400, "A request needs exactly one `Host` header.", param="Host", code="invalid_host")
        if not self._is_ours(hosts[0]):
            raise ApiError(
                403,
                "This `Host` is not ours: use `localhost`, a loopback address, or the `host` that is configured.",
                code="foreign_host",
            )

    def _check_name(self, netloc: str) -> bool:
        parts = _HOST.fullmatch(netloc)
        if parts is None:
            return False
        name = (parts["v6"] or parts["name"]).lower().rstrip(".")
        address = _address(name)
        if address is None:
            return name in self._names or name == "localhost" or name.endswith(".localhost")
        return address.is_loopback or self._any_address or name in self._names


def urlsplit_netloc(origin: str) -> str:
    """Host and port of an origin; empty for `null` and whatever else has none."""
    try:
        return urlsplit(origin).netloc if origin.startswith(("http://", "https://")) else ""
    except ValueError:  # such as an unclosed bracket
        return ""


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def guarding(host: str, origins: Collection[str] = ()) -> Middleware:
    """A middleware that lets only allowed requests through to the endpoints."""
    guard = Guard(host, origins)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        guard.check(request)
        return await handler(request)

    return check
