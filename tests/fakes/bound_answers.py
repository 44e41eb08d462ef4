"""Schemas and tools to bind answers to, and requests that do."""

from __future__ import annotations

from typing import Any

from stoker.ipc.messages import ChatPrompt, Constraint, Generate, Sampling, ToolCall
from tests.fakes.driven_core import Answer

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "trade": {"enum": ["smith", "stoker"]},
    },
    "required": ["name", "age", "trade"],
    "additionalProperties": False,
}
LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {"far": {"type": "boolean"}}, "required": ["far"],
                       "additionalProperties": False, "uniqueItems": True},
    },
}  # fmt: skip
POKE = {"type": "function", "function": {"name": "poke", "parameters": {
    "type": "object", "properties": {"times": {"$ref": "#/$defs/few"}}, "required": ["times"],
    "additionalProperties": False, "$defs": {"few": {"type": "integer", "minimum": 1, "maximum": 5}},
}}}  # fmt: skip
SAMPLED = Sampling(temperature=1.0, seed=5)


def chat(constraint: Constraint, *tools: dict[str, Any], most: int = 200, **how: Any) -> Generate:
    prompt = ChatPrompt(messages=({"role": "user", "content": "Go on."},), tools=tools)
    return Generate(prompt=prompt, max_tokens=most, constraint=constraint, **how)


def calls_of(answer: Answer) -> list[ToolCall]:
    return [call for delta in answer.deltas for call in delta.calls]
