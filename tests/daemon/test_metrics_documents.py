"""What is written about the metrics: documentation, dashboard and alert rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stoker.daemon.timeline import CLASSES
from tests.fakes.page_stage import afternoon

DOCS = Path(__file__).parents[2] / "docs"
ALERTS = DOCS / "monitoring" / "alerts.yml"
DASHBOARD = DOCS / "monitoring" / "grafana-dashboard.json"
PROSE = DOCS / "monitoring.md"


def known() -> dict[str, str]:
    """Type of each metric by the name that people write."""
    shown = afternoon()
    text = shown.insight.metrics.exposition(anyio.run(shown.status)).decode()
    families = [family for family in text_string_to_metric_families(text) if family.name.startswith("stoker_")]
    return {family.name + ("_total" if family.type == "counter" else ""): family.type for family in families}


def series() -> set[str]:
    """Every name that a query may use."""
    return {
        name + suffix
        for name, kind in known().items()
        for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }


def test_each_metric_is_explained() -> None:
    """`docs/monitoring.md` has each metric once, with its type, and none that there isn't."""
    rows = re.findall(r"^\| `(stoker_\w+)` \| (\w+) \|", PROSE.read_text(encoding="utf-8"), re.MULTILINE)

    assert dict(rows) == known()
    assert len(rows) == len(dict(rows))


def test_each_cause_is_explained() -> None:
    """`docs/monitoring.md` has each class of causes, in order."""
    table = PROSE.read_text(encoding="utf-8").partition("| `cause` |")[2].partition("\n\n")[0]

    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == CLASSES


@pytest.mark.parametrize("path", [ALERTS, DASHBOARD], ids=lambda path: path.name)
def test_queries_name_series_that_exist(path: Path) -> None:
    """Dashboard and alerts ask for nothing that isn't exposed."""
    asked = set(re.findall(r"\bstoker_\w+", path.read_text(encoding="utf-8")))

    assert asked - series() == set()
    assert len(asked) >= 8


def test_dashboard_is_whole() -> None:
    """Each panel has a title, a query and a place of its own, and the data source is left to whoever imports it."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    places = [panel["gridPos"] for panel in panels]
    cells = [(x, y) for place in places for x, y in cells_of(place)]

    assert all(panel["title"] and panel["targets"] for panel in panels)
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def cells_of(place: dict[str, int]) -> list[tuple[int, int]]:
    columns = range(place["x"], place["x"] + place["w"])
    return [(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_alerts_are_valid_rules() -> None:
    """`promtool check rules` accepts the alerts."""
    done = subprocess.run(
        ["promtool", "check", "rules", str(ALERTS)],  # noqa: S607 - from PATH, where `skipif` found it
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stderr
