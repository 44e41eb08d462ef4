"""The request of a real agent: a long system prompt and twenty tools, over HTTP.

SmolLM2's own chat template leaves tools out, so its weights are served with a template that prints them: a copy of
the model's directory, of links, in which only the template is another. It prints the system text first, so that what
two prompts share ends there, and asks for no particular form of a call, so that answers are plain text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from http.client import NOT_FOUND, OK, HTTPConnection
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from stoker.bench.children import BenchmarkError
from stoker.bench.report import Json
from stoker.bench.stopwatch import HTTP_DEADLINE
from tests.fakes.agent_tools import AGENT_TOOLS

Tools: TypeAlias = Sequence[dict[str, Any]]

NAME = "stoker, with tools"
"""Of the server in tables."""

TEMPLATE = """\
{%- set system = messages[0].content if messages and messages[0].role == 'system' else '' %}
{%- if system or tools %}{{ '<|im_start|>system\\n' + system }}
{%- if tools %}{{ '\\n\\n# Functions\\n' }}{% endif %}
{%- for tool in tools or [] %}{{ tool | tojson }}{{ '\\n' }}{% endfor %}
{{- '<|im_end|>\\n' }}{% endif %}
{%- for message in messages if message.role != 'system' %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

LEFT_OUT = frozenset({"description", "default", "minimum", "maximum", "additionalProperties"})


def agent_tools(count: int | None = None) -> tuple[dict[str, Any], ...]:
    """The fixture's tools, without what describes single parameters: 2,800 tokens instead of 4,200.

    So that they fit the embedded model's context of 8,192 beside a prompt of 4,000.
    """
    return tuple(_brief(tool) for tool in AGENT_TOOLS[:count])


def _brief(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool["function"]
    return {**tool, "function": {**function, "parameters": _plain(function["parameters"])}}


def _plain(value: Any) -> Any:
    """A schema without descriptions; a property that is called so stays, for its value is a schema."""
    if isinstance(value, dict):
        kept = {name: inner for name, inner in value.items() if name not in LEFT_OUT or isinstance(inner, dict)}
        return {name: _plain(inner) for name, inner in kept.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def model_with_tools(model: Path, folder: Path) -> Path:
    """A directory of links to the model's files, with a template that prints tools; returns it."""
    folder.mkdir()
    for path in model.iterdir():
        if path.name not in {"tokenizer_config.json", "chat_template.jinja", "chat_template.json"}:
            (folder / path.name).symlink_to(path.resolve())
    config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["chat_template"] = TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def anthropic(tools: Tools) -> list[dict[str, Any]]:
    """The same tools in the form of Anthropic's API."""
    functions = [tool["function"] for tool in tools]
    return [
        {"name": each["name"], "description": each["description"], "input_schema": each["parameters"]}
        for each in functions
    ]


def ask_messages(url: str, body: Json) -> int | None:
    """The tokens that a request to `/v1/messages` (Anthropic's API) reused; None where there is no such API.

    Raises:
        BenchmarkError: It was refused.
    """
    connection = HTTPConnection(urlsplit(url).netloc, timeout=HTTP_DEADLINE)
    try:
        connection.request("POST", "/v1/messages", json.dumps(body).encode(), {"Content-Type": "application/json"})
        response = connection.getresponse()
        status, answer = response.status, response.read()
    finally:
        connection.close()
    if status == NOT_FOUND:
        return None
    if status != OK:
        raise BenchmarkError(f"/v1/messages: {status}: {answer[:500].decode(errors='replace')}")
    return int(json.loads(answer).get("usage", {}).get("cache_read_input_tokens") or 0)
