"""The HTTP surface: reads requests, asks `dispatch` for a generation, writes answers in the API's own shape.

`server` runs `app`, which wires the rest. `openai` and `pages` hold the endpoints; `openai_types` is what a client
may send, `openai_request` what becomes of it, `openai_answer`, `openai_chunks` and `openai_completions` the bytes
that go back. `merging`, `streaming`, `sse`, `bodies` and `errors` serve every API; `guard`, `keys`, `cors` and
`manners` stand before them. `reference` makes tables of the documentation. `docs/api.md` is the prose.
"""

from .app import application
from .backend import Backend
from .keys import Access, Keys
from .server import runner

__all__ = ["Access", "Backend", "Keys", "application", "runner"]
