"""The status page's files: read once, served from memory, asked for again by their checksum."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files

from aiohttp import hdrs, web

from ..errors import ApiError

TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""What is served; other files of the folder are not."""

FOLDER = files(str(__package__).rpartition(".")[0]) / "assets"


class Assets:
    """The files by name."""

    def __init__(self) -> None:
        self._files = {entry.name: entry.read_bytes() for entry in FOLDER.iterdir() if _suffix(entry.name) in TYPES}
        self._tags = {name: f'"{sha256(body).hexdigest()[:20]}"' for name, body in self._files.items()}

    async def serve(self, request: web.Request) -> web.Response:
        """One of them, or 304 if the browser has it as it is."""
        name = request.match_info["name"]
        if name not in self._files:
            raise ApiError(404, "There is no such file.", code="unknown_url")
        tag = self._tags[name]
        headers = {hdrs.ETAG: tag, hdrs.CACHE_CONTROL: "no-cache"}  # it asks, and hears 304
        if request.headers.get(hdrs.IF_NONE_MATCH) == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(
            body=self._files[name], content_type=TYPES[_suffix(name)], charset="utf-8", headers=headers
        )


def template() -> str:
    """The page itself, with `$names` to fill in."""
    return (FOLDER / "page.html").read_text(encoding="utf-8")


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]
