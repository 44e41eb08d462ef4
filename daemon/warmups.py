"""`[[warmup]]` in the configuration: prompts to make warm, each with the tools and template arguments of its client.

What is checked here is checked before anything is started. A `file` is read again by the worker at each warmup, so
that a changed prompt needs no restart of the daemon; its tools are sent as they were at the start.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from ..ipc.messages import WarmPrefix
from .model_path import PROMPT_FILE_LIMIT

Table: TypeAlias = Mapping[str, Any]

KEYS = ("name", "system", "file", "tools", "template_args")
MOST_TABLES = 64
LONGEST_NAME = 64
TOOLS_FILE_LIMIT = 1 << 20
"""Bytes of a file of tools."""
TOTAL_LIMIT = 8 << 20
"""Bytes of all prompts and tools as they are sent to the worker, half of what a message may have."""
STANDARD, LEARNED = "system", "learned-"
"""A name, and the beginning of names, that the daemon gives itself."""

NOT_ARGUMENTS = frozenset({"chat_template", "conversation", "messages", "tools", "tokenize"})
"""What no request may give its template either, so that a prefix with it would serve nobody."""

NAME = f"a text of 1 to {LONGEST_NAME} printable characters, neither `system` nor beginning with `learned-`"
TOOLS = (
    "a JSON file with an array of tools, or an object with `tools`, each in OpenAI's form "
    '{"type": "function", "function": {"name": …}} or Anthropic\'s {"name": …, "input_schema": …}'
)


class WarmupError(Exception):
    """A table can't be used.

    Attributes:
        key: Where: `warmup[0].file`.
        value: What was given there.
        problem: What is wrong with it, and what is allowed.
    """

    def __init__(self, key: str, value: object, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.value = value
        self.problem = problem


def read_warmups(value: object, base: Path) -> tuple[WarmPrefix, ...]:
    """The prefixes that the tables describe, in their order.

    Args:
        value: As TOML gives it.
        base: What relative paths are relative to.

    Raises:
        WarmupError: One of them can't be used.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(table, Mapping) for table in value):
        raise WarmupError("warmup", value, "allowed are tables: [[warmup]], with `name`, and `system` or `file`")
    if len(value) > MOST_TABLES:
        raise WarmupError("warmup", f"{len(value)} tables", f"allowed are at most {MOST_TABLES}")
    prefixes = tuple(_Table(index, table, base).prefix() for index, table in enumerate(value))
    _demand_different(prefixes)
    size = len(msgspec.json.encode(prefixes))
    if size > TOTAL_LIMIT:
        raise WarmupError("warmup", f"{size} bytes of prompts and tools", f"allowed are {TOTAL_LIMIT} in all")
    return prefixes


def in_order(tables: tuple[WarmPrefix, ...], file: Path | None) -> tuple[WarmPrefix, ...]:
    """What is warmed at each start. Who configures prompts doesn't want the built-in one besides.

    Args:
        tables: `[[warmup]]`.
        file: `WARMUP_SYSTEM_FILE`.
    """
    if file is None and tables:
        return tables
    return (*tables, WarmPrefix(name=STANDARD, file=str(file) if file else None))


class _Table:
    """One `[[warmup]]`."""

    def __init__(self, index: int, table: Table, base: Path) -> None:
        self._where = f"warmup[{index}]"
        self._table = table
        self._base = base

    def prefix(self) -> WarmPrefix:
        self._demand_known_keys()
        file = self._file()
        return WarmPrefix(
            name=self._name(),
            system=self._system(),
            file=None if file is None else str(file),
            strict=file is not None,
            tools=self._tools(),
            template_args=self._arguments(),
        )

    def _refusal(self, key: str, problem: str) -> WarmupError:
        return WarmupError(f"{self._where}.{key}", self._table.get(key), problem)

    def _demand_known_keys(self) -> None:
        for key in self._table:
            if key not in KEYS:
                close = get_close_matches(key, KEYS, n=1)
                hint = f"did you mean `{close[0]}`?" if close else f"known are: {', '.join(KEYS)}"
                raise self._refusal(key, f"there is no such key; {hint}")
        if ("system" in self._table) == ("file" in self._table):
            raise WarmupError(self._where, dict(self._table), "allowed is one of `system` and `file`")

    def _name(self) -> str:
        name = self._table.get("name")
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise self._refusal("name", f"allowed is {NAME}")
        if name == STANDARD or name.startswith(LEARNED):
            raise self._refusal("name", f"that name is the daemon's own; allowed is {NAME}")
        return name

    def _system(self) -> str | None:
        text = self._table.get("system")
        if text is None:
            return None
        if not isinstance(text, str) or not text.strip():
            raise self._refusal("system", "allowed is a text that is not empty")
        if len(text.encode()) > PROMPT_FILE_LIMIT:
            raise self._refusal("system", f"allowed are {PROMPT_FILE_LIMIT} bytes")
        return text

    def _file(self) -> Path | None:
        if "file" not in self._table:
            return None
        path, text = self._read("file", PROMPT_FILE_LIMIT)
        if not text.strip():
            raise self._refusal("file", f"{path} is empty; allowed is a UTF-8 file with a system prompt")
        return path

    def _read(self, key: str, limit: int) -> tuple[Path, str]:
        """A text file's absolute path, and its text."""
        given, allowed = self._table[key], f"allowed is a UTF-8 file of at most {limit} bytes"
        if not isinstance(given, str) or not given or "\0" in given:
            raise self._refusal(key, allowed)
        try:
            path = self._base / Path(given).expanduser()
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # asked before opening: a pipe would block
                raise self._refusal(key, f"{path} is not a regular file; {allowed}")
            if status.st_size > limit:
                raise self._refusal(key, f"{path} has {status.st_size} bytes; {allowed}")
            return path, path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise self._refusal(key, f"byte {error.start} of it is not UTF-8; {allowed}") from error
        except (OSError, RuntimeError) as error:  # RuntimeError: a home directory that isn't known
            reason = error.strerror if isinstance(error, OSError) else error
            raise self._refusal(key, f"it can't be read: {reason}; {allowed}") from error

    def _tools(self) -> tuple[dict[str, Any], ...]:
        if "tools" not in self._table:
            return ()
        path, text = self._read("tools", TOOLS_FILE_LIMIT)
        try:
            return tools_of(msgspec.json.decode(text))
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._refusal("tools", f"{path} is not JSON: {error}; allowed is {TOOLS}") from error
        except ValueError as error:
            raise self._refusal("tools", f"{path}: {error}; allowed is {TOOLS}") from error

    def _arguments(self) -> dict[str, Any]:
        arguments = self._table.get("template_args", {})
        if not isinstance(arguments, dict) or not all(map(_is_json, arguments.values())):
            raise self._refusal("template_args", "allowed is a table of texts, numbers, truths, lists and tables")
        if clash := sorted(arguments.keys() & NOT_ARGUMENTS):
            raise self._refusal("template_args", f"{clash[0]} may not be set; it is no request's to set either")
        return arguments


def tools_of(document: object) -> tuple[dict[str, Any], ...]:
    """Tools in the form that chat templates take, which is OpenAI's, from any form that clients send.

    Args:
        document: An array of tools, or a request with one. OpenAI's two forms and Anthropic's are recognised.

    Raises:
        ValueError: It is none of them; the message says which tool, and what is wrong.
    """
    tools = document.get("tools") if isinstance(document, dict) else document
    if not isinstance(tools, list) or not tools:
        raise ValueError("there is no array of tools in it")
    return tuple(_tool(index, tool) for index, tool in enumerate(tools))


def _tool(index: int, tool: object) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise ValueError(f"tool {index} is no object")  # noqa: TRY004 - bad data, not a bad call
    function = tool.get("function", tool)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise ValueError(f"tool {index} has no name")
    schema = function.get("parameters", function.get("input_schema"))
    if schema is not None and not isinstance(schema, dict):
        raise ValueError(f"the parameters of the tool {function['name']} are no object")
    if function is tool and schema is None and tool.get("type", "function") not in {"function", "custom"}:
        raise ValueError(f"the tool {function['name']} is of the type {tool['type']!r}, which only its vendor runs")
    if function is not tool:
        return tool
    own = {key: tool[key] for key in ("name", "description", "strict") if tool.get(key) is not None}
    return {"type": "function", "function": own | ({} if schema is None else {"parameters": schema})}


def _is_json(value: object) -> bool:
    """TOML has dates, which JSON has not."""
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(map(_is_json, value.values()))
    return isinstance(value, str | int | float)


def _demand_different(prefixes: Sequence[WarmPrefix]) -> None:
    names = [prefix.name for prefix in prefixes]
    for index in _repeated(names):
        raise WarmupError(f"warmup[{index}].name", names[index], "another table has that name; give each its own")


def _repeated(names: Sequence[str]) -> Iterator[int]:
    return (index for index, name in enumerate(names) if name in names[:index])
