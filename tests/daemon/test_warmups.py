from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from stoker.daemon.config import ConfigurationError, load_settings
from stoker.daemon.warmups import MOST_TABLES, TOTAL_LIMIT, WarmupError, in_order, read_warmups, tools_of
from stoker.ipc.messages import WarmPrefix

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
OPENAI = {"type": "function", "function": {"name": "read", "description": "Reads.", "parameters": SCHEMA}}
FLAT = {"type": "function", "name": "read", "description": "Reads.", "parameters": SCHEMA}
ANTHROPIC = {"name": "read", "description": "Reads.", "input_schema": SCHEMA}


def refused(base: Path, **table: Any) -> WarmupError:
    with pytest.raises(WarmupError) as caught:
        read_warmups([{"name": "agent", "system": "Be brief."}, table], base)
    return caught.value


def test_a_table_becomes_a_prefix(tmp_path: Path) -> None:
    """Each key reaches the worker: the file by its absolute path, the tools in the template's form."""
    (tmp_path / "agent.md").write_text("Be brief.")
    (tmp_path / "tools.json").write_text(json.dumps([ANTHROPIC]))
    path = tmp_path / "stoker.toml"
    path.write_text(
        '[[warmup]]\nname = "agent"\nfile = "agent.md"\ntools = "tools.json"\n'
        'template_args = { enable_thinking = false }\n[[warmup]]\nname = "other"\nsystem = "Be long."'
    )
    settings, warnings = load_settings({}, {}, path)

    agent = WarmPrefix(
        name="agent",
        file=str(tmp_path / "agent.md"),
        strict=True,
        tools=(OPENAI,),
        template_args={"enable_thinking": False},
    )
    assert settings.warmup == (agent, WarmPrefix(name="other", system="Be long."))
    assert warnings == ()


def test_a_mistake_names_key_value_source_and_what_is_allowed(tmp_path: Path) -> None:
    """A bad table is a configuration error of one line, like any other."""
    path = tmp_path / "stoker.toml"
    path.write_text('[[warmup]]\nname = "agent"\nfile = "missing.md"')
    with pytest.raises(ConfigurationError) as caught:
        load_settings({}, {}, path)

    assert str(caught.value).startswith(f"warmup[0].file = 'missing.md' (from {path}) can't be used: ")
    assert "No such file" in str(caught.value)
    assert "allowed is a UTF-8 file" in str(caught.value)
    assert caught.value.key == "warmup"


@pytest.mark.parametrize(
    ("table", "key", "words"),
    [
        ({"name": "x"}, "", "one of `system` and `file`"),
        ({"name": "x", "system": "a", "file": "b"}, "", "one of `system` and `file`"),
        ({"name": "x", "sytem": "a"}, ".sytem", "did you mean `system`?"),
        ({"name": "x", "zzz": 1}, ".zzz", "known are: name, system"),
        ({"system": "a"}, ".name", "printable"),
        ({"name": 7, "system": "a"}, ".name", "printable"),
        ({"name": "a\nb", "system": "a"}, ".name", "printable"),
        ({"name": "x" * 65, "system": "a"}, ".name", "64"),
        ({"name": "system", "system": "a"}, ".name", "the daemon's own"),
        ({"name": "learned-1", "system": "a"}, ".name", "the daemon's own"),
        ({"name": "agent", "system": "a"}, ".name", "another table"),
        ({"name": "x", "system": " \n"}, ".system", "not empty"),
        ({"name": "x", "system": "a" * (1 << 20) + "b"}, ".system", "1048576 bytes"),
        ({"name": "x", "file": 7}, ".file", "a UTF-8 file"),
        ({"name": "x", "file": "a\0b"}, ".file", "a UTF-8 file"),
        ({"name": "x", "file": "."}, ".file", "not a regular file"),
        ({"name": "x", "file": "pipe"}, ".file", "not a regular file"),
        ({"name": "x", "file": "empty"}, ".file", "is empty"),
        ({"name": "x", "file": "large"}, ".file", "has 1048577 bytes"),
        ({"name": "x", "file": "latin"}, ".file", "byte 0 of it is not UTF-8"),
        ({"name": "x", "file": "~nobody-of-that-name/x"}, ".file", "can't be read"),
        ({"name": "x", "system": "a", "tools": "missing"}, ".tools", "No such file"),
        ({"name": "x", "system": "a", "tools": "empty"}, ".tools", "not JSON"),
        ({"name": "x", "system": "a", "tools": "number.json"}, ".tools", "no array of tools"),
        ({"name": "x", "system": "a", "template_args": {"day": object()}}, ".template_args", "a table of texts"),
        ({"name": "x", "system": "a", "template_args": 1}, ".template_args", "a table of texts"),
        ({"name": "x", "system": "a", "template_args": {"tools": []}}, ".template_args", "tools may not be set"),
    ],
)
def test_each_mistake_is_refused_with_the_way_out(
    tmp_path: Path, table: dict[str, Any], key: str, words: str
) -> None:
    """The error has the table's number and the key, and says what would do."""
    os.mkfifo(tmp_path / "pipe")
    for name, content in {"empty": b"", "large": b"a" * 1048577, "latin": b"\xff", "number.json": b"7"}.items():
        (tmp_path / name).write_bytes(content)
    error = refused(tmp_path, **table)

    assert error.key == f"warmup[1]{key}"
    assert words in error.problem


def test_no_tables_at_all_is_a_mistake_too() -> None:
    """A value in the place of tables, and more of them than anybody means, are refused."""
    for value in ("agent.md", ["agent.md"], [{"name": str(n), "system": "a"} for n in range(MOST_TABLES + 1)]):
        with pytest.raises(WarmupError, match="warmup: allowed"):
            read_warmups(value, Path())


def test_what_does_not_fit_a_message_is_refused_at_once(tmp_path: Path) -> None:
    """Prompts that together are larger than a message to the worker may be are a configuration error."""
    tables = [{"name": str(n), "system": "a" * (1 << 20)} for n in range(TOTAL_LIMIT >> 20)]
    with pytest.raises(WarmupError, match="in all"):
        read_warmups(tables, tmp_path)


@pytest.mark.parametrize("document", [[OPENAI], [FLAT], [ANTHROPIC], {"model": "m", "tools": [ANTHROPIC]}])
def test_every_client_s_form_of_tools_is_taken(document: object) -> None:
    """OpenAI's two forms, Anthropic's, and a whole request become the form that chat templates take."""
    assert tools_of(document) == (OPENAI,)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "no array"),
        ([], "no array"),
        ([7], "tool 0 is no object"),
        ([OPENAI, {"type": "function"}], "tool 1 has no name"),
        ([{"name": "read", "input_schema": []}], "parameters of the tool read"),
        ([{"type": "bash_20250124", "name": "bash"}], "only its vendor runs"),
    ],
)
def test_what_is_no_tool_is_refused(document: object, words: str) -> None:
    """The message says which tool, and what is wrong with it."""
    with pytest.raises(ValueError, match=words):
        tools_of(document)


def test_the_order_of_warming(tmp_path: Path) -> None:
    """Tables come first, then the file of `WARMUP_SYSTEM_FILE`; the built-in prompt only where nothing is given."""
    table = WarmPrefix(name="agent", system="Be brief.")
    file = tmp_path / "prompt.md"

    def names(*given: Any) -> list[tuple[str, str | None]]:
        return [(prefix.name, prefix.file) for prefix in in_order(*given)]

    assert names((), None) == [("system", None)]
    assert names((table,), None) == [("agent", None)]
    assert names((), file) == [("system", str(file))]
    assert names((table,), file) == [("agent", None), ("system", str(file))]
