"""The HTTP surface: reads requests, asks `dispatch` for a generation, writes answers in the API's own shape.

`server` runs `app`, which wires the rest. `openai` and `pages` hold the endpoints; `openai_types` is what a client
may send, `openai_request` what becomes of it, `openai_answer`, `openai_chunks` and `openai_completions` the bytes
that go back. `merging`, `streaming`, `sse`, `bodies`, `errors` and `guard` serve every API. `reference` makes tables
of the documentation. `docs/api.md` is the prose.
"""

from .app import application
from .backend import Backend
from .server import runner

__all__ = ["Backend", "application", "runner"]
