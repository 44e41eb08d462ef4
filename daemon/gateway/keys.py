"""API keys: who has one may ask. Without configured keys, everyone whom `guard` lets through may."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from .errors import ApiError

ALWAYS_OPEN = frozenset({"/", "/livez"})
"""That the process answers tells nobody anything; nor does the page, to whom it asks for a key."""

OPEN_FOLDER = "/assets/"
"""The page's own files."""

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="stoker"'}


class Keys:
    """The keys that are accepted; an empty collection accepts everyone. Only digests are kept.

    Args:
        keys: As configured.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def fit(self, given: Iterable[str]) -> bool:
        """Whether one of the keys that a client sent is ours. How long this takes tells nothing about any key."""
        # Every pair is compared, to the end: digests have one length, and no comparison is left out.
        pairs = [(digest, _digest(key)) for key in given for digest in self._digests]
        return sum(hmac.compare_digest(*pair) for pair in pairs) > 0


def _digest(key: str) -> bytes:
    return sha256(key.encode(errors="surrogateescape")).digest()  # header values may hold any bytes


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use the API, as configured.

    Attributes:
        keys: Accepted ones.
        open_endpoints: Paths that need none.
        origins: Origins of web pages that may ask, exactly as browsers send them.
    """

    keys: Keys = field(default_factory=Keys)
    open_endpoints: Collection[str] = ()
    origins: Collection[str] = ()


def demanding_key(access: Access) -> Middleware:
    """A middleware that lets through to the endpoints whoever has a key, or asks for what is open."""
    free = ALWAYS_OPEN.union(access.open_endpoints)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if access.keys and request.path not in free and not request.path.startswith(OPEN_FOLDER):
            _demand(access.keys, list(_given(request)))
        return await handler(request)

    return check


def may_ask(access: Access, request: web.Request) -> bool:
    """Whether the request has a key, or needs none."""
    return not access.keys or access.keys.fit(list(_given(request)))


def _demand(keys: Keys, given: list[str]) -> None:
    if keys.fit(given):
        return
    problem = "This API key is not one of ours" if given else "An API key is needed"
    raise ApiError(
        401,
        f"{problem}: send `Authorization: Bearer KEY` or `x-api-key: KEY` with a key that this server was configured "
        "with (`api_keys` or `api_key_file`).",
        code="invalid_api_key",
        headers=_CHALLENGE,
    )


def _given(request: web.Request) -> Iterable[str]:
    for value in request.headers.getall("Authorization", []):
        scheme, _, key = value.partition(" ")
        if scheme.lower() == "bearer":
            yield key.strip()
    for value in request.headers.getall("X-Api-Key", []):
        yield value.strip()
