"""The tests read as a specification: each says in one sentence what is promised, and stands where its module is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
ROOMS = ("daemon", "worker", "ipc", "launchd", "src")

LONGEST_SENTENCE = 200
"""Characters; a promise that needs more is two tests."""

MIRRORS_NO_MODULE = {
    "ipc/test_protocol_doc.py": "the prose of the protocol",
}
"""Test files in a room's folder whose subject is no module of it, and what it is."""

FILES = sorted(path for path in TESTS.rglob("test_*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The test functions of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node


def fault_of(sentence: str | None) -> str | None:
    """What is wrong with a docstring, if anything."""
    if not sentence:
        return "has no docstring"
    text = " ".join(sentence.split())
    if not text.endswith("."):
        return "does not end with a full stop"
    if not text[0].isupper() and text[0] not in "`'\"0123456789":
        return "does not begin like a sentence"
    return "is too long" if len(text) > LONGEST_SENTENCE else None


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_test_promises_something(path: Path) -> None:
    """Each test function has a docstring of one sentence."""
    faults = {node.name: fault_of(ast.get_docstring(node)) for node in functions_of(path)}

    assert {name: fault for name, fault in faults.items() if fault} == {}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_promise_is_its_own(path: Path) -> None:
    """No two tests of a file have the same docstring or the same name."""
    nodes = list(functions_of(path))

    assert len({ast.get_docstring(node) for node in nodes}) == len(nodes)
    assert len({node.name for node in nodes}) == len(nodes)


@pytest.mark.parametrize("path", [path for path in FILES if path.relative_to(TESTS).parts[0] in ROOMS], ids=name_of)
def test_test_file_stands_where_its_module_is(path: Path) -> None:
    """`tests/<room>/test_<module>.py` is about that module; `test_<module>_<aspect>.py` about one side of it."""
    if name_of(path) in MIRRORS_NO_MODULE:
        return
    folder = ROOT / path.relative_to(TESTS).parent
    modules = {module.stem if module.suffix else module.name for module in folder.iterdir()}
    words = path.stem.removeprefix("test_").split("_")
    candidates = {"_".join(words[:count]) for count in range(1, len(words) + 1)}

    assert candidates & {module.strip("_") for module in modules}


def test_exceptions_exist() -> None:
    """The list of exceptions names no file that is gone."""
    assert set(MIRRORS_NO_MODULE) <= {name_of(path) for path in FILES}


@pytest.mark.parametrize(
    "docstring",
    [None, "", "no capital.", "No stop", "x" * 500 + ".", "Word " * 50 + "."],
    ids=lambda text: str(text)[:9],
)
def test_bad_promises_are_noticed(docstring: str | None) -> None:
    """A missing, endless or unfinished sentence is a fault."""
    assert fault_of(docstring) is not None
