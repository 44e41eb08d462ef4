"""A chat-completions server that says what it is told to say."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DONE = b"data: [DONE]\n\n"


def chunk(text: str) -> bytes:
    """One streamed piece, as OpenAI's API sends it."""
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\n\n"


@dataclass
class Script:
    """The answer to every request, and the requests."""

    status: int = 200
    answer: bytes = b": keep-alive\n\n" + chunk("Hello ") + chunk("wörld") + DONE
    asked: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)


@contextmanager
def chat_server(script: Script) -> Iterator[str]:
    """The base URL of a server that follows the script while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            script.paths.append(self.path)
            script.authorizations.append(self.headers["Authorization"])
            script.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(script.status)
            self.end_headers()
            self.wfile.write(script.answer)

        def log_message(self, *_: object) -> None:
            """Keep stderr for what is tested."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
