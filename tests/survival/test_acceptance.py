"""The list of faults in the documentation: complete, and each line with a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCENARIOS = [f"S{number}" for number in range(1, 29)] + [f"L{number}" for number in range(1, 16)]

ROW = re.compile(r"^\| ([SL]\d+) ([^|]*)\| ([^|]*)\| ([^|]*)\|$", re.MULTILINE)
ROWS = {row[0]: row[1:] for row in ROW.findall((ROOT / "docs" / "operations.md").read_text(encoding="utf-8"))}


def named_in(cell: str) -> list[str]:
    """What a cell names: `survival/test_time::test_machine_that_sleeps`."""
    return re.findall(r"`([\w/]+::\w+)`", cell)


def exists(name: str) -> bool:
    file, _, function = name.partition("::")
    path = ROOT / "tests" / f"{file}.py"
    if not path.exists():
        return False
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function for node in nodes)


def test_list_is_complete() -> None:
    """Each scenario has its line, in order."""
    assert list(ROWS) == SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario_has_a_test(scenario: str) -> None:
    """A scenario names tests that exist, or says why it does not apply."""
    _, answer, cell = ROWS[scenario]
    names = named_in(cell)

    assert [name for name in names if not exists(name)] == []
    assert names or answer.startswith("not applicable: ")


def test_missing_test_is_noticed() -> None:
    """A name of no test is found out."""
    assert not exists("survival/test_time::test_of_time")
    assert not exists("survival/test_nothing::test_machine_that_sleeps")
