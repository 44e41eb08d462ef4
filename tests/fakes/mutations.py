"""Requests that are nearly right: valid ones, changed at random in a place or three."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

Json: TypeAlias = Any

TOOL = {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}

SEEDS: dict[str, Sequence[Json]] = {
    "/v1/chat/completions": (
        {"model": "default", "messages": [{"role": "user", "content": "Hi"}]},
        {
            "model": "default",
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "content": "3", "tool_call_id": "call_1"},
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
            "stop": ["a", "b"],
            "temperature": 0.5,
            "seed": 3,
            "max_completion_tokens": 4,
            "tools": [{"type": "function", "function": TOOL}],
            "tool_choice": "auto",
            "parallel_tool_calls": False,
            "logit_bias": {"5": 1},
            "logprobs": True,
            "top_logprobs": 2,
            "n": 1,
        },
        {
            "model": "default",
            "messages": [{"role": "developer", "content": "Hi"}, {"role": "user", "content": "Hi", "name": "me"}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
            "top_k": 3,
            "min_p": 0.1,
            "presence_penalty": 1,
            "frequency_penalty": -1,
            "repetition_penalty": 1.1,
            "n": 2,
        },
    ),
    "/v1/completions": (
        {"model": "default", "prompt": "Hi"},
        {"model": "default", "prompt": ["Hi", "x"], "max_tokens": 3, "stream": True, "logprobs": 2},
        {"model": "default", "prompt": [1, 2, 3], "echo": False, "stop": "x", "n": 1, "best_of": 1, "suffix": None},
        {"model": "default", "prompt": [[1, 2], [3]], "stream": True, "stream_options": {"include_usage": True}},
    ),
    "/v1/responses": (
        {"model": "default", "input": "Hi"},
        {
            "model": "default",
            "instructions": "Be brief.",
            "input": [
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "3"},
            ],
            "tools": [{"type": "function", **TOOL}],
            "stream": True,
            "max_output_tokens": 16,
            "temperature": 1,
            "store": False,
        },
    ),
    "/v1/messages": (
        {"model": "default", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]},
        {
            "model": "default",
            "max_tokens": 5,
            "stream": True,
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "3"}]},
            ],
            "tools": [{"name": "look", "description": "Look.", "input_schema": {"type": "object"}}],
            "stop_sequences": ["a"],
            "temperature": 0.2,
            "metadata": {"user_id": "me"},
        },
    ),
    "/v1/messages/count_tokens": ({"model": "default", "messages": [{"role": "user", "content": "Hi"}]},),
}
"""Bodies that are served, by path."""

JUNK: Sequence[Json] = (
    None, True, False, 0, -1, 1, 1.5, 2**31, 2**63, 2**64, -(2**63) - 1, 1e308, 5e-324, "", "x", "\0", "\ud800",
    "é" * 9, "{}", "null", "default", "a" * 70_000, [], [[]], {}, {"": None}, {"type": "text"},
    {"type": "image_url"},
    {"role": "user"}, [None], ["x"] * 50, {"type": "function"}, float("nan"), float("inf"), "http://127.0.0.1:1/x.png",
)  # fmt: skip
"""Values for any place; some are no JSON, which Python writes all the same."""

METHODS = ("GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
PATHS = ("/", "/livez", "/metrics", "/assets/page.js", "/actions/rewarm", "/actions/restart", "/readyz", "/status",
         "/openapi.json", "/v1/models", "/v1/models/default", "/v1/models/%ff",
         "/v1/responses/x", "/v1/responses/x/cancel", "/v1/nothing", "/v1", "/v1/chat/completions/", "//", "/%00",
         "/v1/messages/x", "/v1/models/a/b?c=d", "/v1/models/")  # fmt: skip
HEADERS = (
    ("Content-Type", "text/plain"), ("Content-Type", "multipart/form-data"), ("Content-Encoding", "gzip"),
    ("Content-Encoding", "x"), ("Accept", "text/event-stream"), ("Authorization", "Bearer é"), ("X-Api-Key", ""),
    ("anthropic-version", "x"), ("anthropic-beta", "a, b"), ("Expect", "100-continue"), ("Expect", "x"),
    ("Cookie", ";;;="), ("If-Modified-Since", "x"), ("Range", "bytes=5-1"), ("Accept-Encoding", "gzip;q=x"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """A request: everything but `Host` and the length of its body."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


def mutant(random: Random) -> Mutant:
    """The next request; the same generator in the same state makes the same one."""
    path = random.choice(tuple(SEEDS))
    tree = _copy(random.choice(SEEDS[path]))
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        tree = _changed(tree, random)
    body = json.dumps(tree).encode()
    if random.random() < 0.2:
        body = random.choice(_BYTES)(body, random)
    headers = (random.choice(HEADERS),) if random.random() < 0.1 else ()
    method = random.choice(METHODS) if random.random() < 0.05 else "POST"
    if random.random() < 0.05:
        path = random.choice(PATHS)
    return Mutant(method, path, headers, body)


def _changed(tree: Json, random: Random) -> Json:
    """The tree with one place changed; it may be the root."""
    children = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    if not children or random.random() < 0.1:
        return _replaced(tree, random)
    key = random.choice(children)
    match random.randrange(8):
        case 0:
            del tree[key]
        case 1 if isinstance(tree, dict):
            tree[random.choice(("", "x", "type", "content", "text", "id", "__class__"))] = _junk(random)
        case 1 | 2 if isinstance(tree, list):
            tree.insert(random.randrange(len(tree) + 1), _copy(tree[key]))
        case 3:
            tree[key] = _replaced(tree[key], random)
        case _:
            tree[key] = _changed(tree[key], random)
    return tree


def _replaced(tree: Json, random: Random) -> Json:
    if random.random() < 0.1:
        return _nested(tree, random.choice((2, 50, 250)))
    return _junk(random)


def _junk(random: Random) -> Json:
    return _copy(random.choice(JUNK))  # it may be changed further


def _copy(tree: Json) -> Json:
    return json.loads(json.dumps(tree))  # deepcopy calls itself for each level


def _nested(tree: Json, depth: int) -> Json:
    for index in range(depth):  # Python's own encoder goes not much deeper; whole bodies do
        tree = [tree] if index % 2 else {"a": tree}
    return tree


def _flip(body: bytes, random: Random) -> bytes:
    place = random.randrange(len(body))
    return body[:place] + bytes((random.randrange(256),)) + body[place + 1 :]


def _cut(body: bytes, random: Random) -> bytes:
    return body[: random.randrange(len(body))]


def _insert(body: bytes, random: Random) -> bytes:
    place = random.randrange(len(body))
    return body[:place] + random.choice((b"\xff", b"\0", b"{", b'"', b"[" * 5000, b"\\u", b"1e999")) + body[place:]


def _deepen(body: bytes, random: Random) -> bytes:
    depth = random.randrange(200, 1100)
    place = random.choice((b'"Hi"', b"{}", b'"object"', b'"3"'))
    return body.replace(place, b'{"a":' * depth + b"1" + b"}" * depth, 1)


_BYTES: Sequence[Callable[[bytes, Random], bytes]] = (
    _flip,
    _flip,
    _cut,
    _insert,
    _deepen,
    lambda body, _: b"\xef\xbb\xbf" + body,
    lambda body, _: body.decode().encode("utf-16"),
    lambda body, _: body + body,
    lambda _, random: random.randbytes(random.randrange(200)),
    lambda _body, _random: b"[" * 100_000,
    lambda _body, _random: b'{"a":' * 50_000,
    lambda _body, _random: b"",
)
