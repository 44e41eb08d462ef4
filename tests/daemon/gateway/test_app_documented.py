"""`docs/api.md` tells every endpoint, and every code that a refusal can have."""

from __future__ import annotations

import re
from pathlib import Path

from stoker.daemon.gateway.openapi.endpoints import ENDPOINTS

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
SOURCES = [path.read_text(encoding="utf-8") for path in (ROOT / "daemon" / "gateway").glob("*.py")]


def test_every_endpoint_is_documented() -> None:
    """The table of endpoints has each that is served, and no other."""
    documented = re.findall(r"^\| `([A-Z]+ /\S*)` \|", PAGE, re.MULTILINE)

    assert sorted(documented) == sorted(f"{endpoint.method} {endpoint.path}" for endpoint in ENDPOINTS)


def test_every_code_is_documented() -> None:
    """A program that looks at `code` finds each in the table of errors."""
    table = PAGE[PAGE.index("| status | code |") :]
    documented = set(re.findall(r"`([a-z_]+)`", table[: table.index("\n\n")]))
    used = {code for source in SOURCES for code in re.findall(r'code="([a-z_]+)"', source)}

    assert used
    assert used <= documented
