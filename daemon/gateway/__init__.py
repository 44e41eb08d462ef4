"""The HTTP surface: reads requests, asks `dispatch` for a generation, writes answers in the API's own shape.

`server` runs `app`, which wires the rest. `openai`, `anthropic` and `responses` are an API each, `openapi` describes
them, and `pages` is what the daemon says of itself. `fields`, `bodies`, `names`, `merging`, `streaming`, `sse` and
`errors` serve every API; `guard`, `keys`, `cors` and `manners` stand before them. `reference` makes tables of the
documentation. `docs/api.md` is the prose.
"""

from .app import application
from .backend import Backend
from .keys import Access, Keys
from .server import runner

__all__ = ["Access", "Backend", "Keys", "application", "runner"]
