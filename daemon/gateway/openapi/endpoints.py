"""Every endpoint with its types, for the OpenAPI document; a test compares this table with what is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from ....ipc.control_messages import Accepted, Readiness, RewarmReport, StatusReport
from ..anthropic import types as anthropic_types
from ..openai import answer as openai_answer
from ..openai import completions as openai_completions
from ..openai import types as openai_types
from ..pages import Life
from ..responses import document as responses_document
from ..responses import types as responses_types

Body: TypeAlias = type[msgspec.Struct]

HTML = "text/html"
TEXT = "text/plain"
EVENTS = "text/event-stream"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path. Every GET is also a HEAD, and every path answers OPTIONS.

    Attributes:
        method: In capitals.
        path: With parameters in braces.
        summary: A line for people.
        tag: The API that it belongs to.
        answer: Body of a 200; None where it is never answered so.
        body: Of the request.
        streams: Whether `"stream": true` answers with server-sent events.
        media: Of the answer.
        also: Further statuses that have a body of their own.
    """

    method: str
    path: str
    summary: str
    tag: str
    answer: Body | None = None
    body: Body | None = None
    streams: bool = False
    media: str = JSON
    also: Mapping[int, Body] = field(default_factory=lambda: MappingProxyType({}))


OPENAI, ANTHROPIC, STOKER = "OpenAI", "Anthropic", "Stoker"

_STORED = "Nothing is stored: always a 404"

ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/chat/completions",
        "Answer a conversation",
        OPENAI,
        openai_answer.ChatCompletion,
        openai_types.ChatRequest,
        streams=True,
    ),
    Endpoint(
        "POST",
        "/v1/completions",
        "Continue a text",
        OPENAI,
        openai_completions.Completion,
        openai_types.CompletionRequest,
        streams=True,
    ),
    Endpoint("GET", "/v1/models", "The model, under each of its names", OPENAI, openai_answer.ModelList),
    Endpoint("GET", "/v1/models/{id}", "The model that a name stands for", OPENAI, openai_answer.Model),
    Endpoint(
        "POST",
        "/v1/responses",
        "Answer a conversation",
        OPENAI,
        responses_document.Response,
        responses_types.ResponsesRequest,
        streams=True,
    ),
    Endpoint("GET", "/v1/responses/{id}", _STORED, OPENAI),
    Endpoint("DELETE", "/v1/responses/{id}", _STORED, OPENAI),
    Endpoint("GET", "/v1/responses/{id}/input_items", _STORED, OPENAI),
    Endpoint("POST", "/v1/responses/{id}/cancel", _STORED, OPENAI),
    Endpoint(
        "POST",
        "/v1/messages",
        "Answer a conversation",
        ANTHROPIC,
        anthropic_types.AnswerMessage,
        anthropic_types.MessagesRequest,
        streams=True,
    ),
    Endpoint(
        "POST",
        "/v1/messages/count_tokens",
        "Count a conversation's tokens",
        ANTHROPIC,
        anthropic_types.MessageTokensCount,
        anthropic_types.CountRequest,
    ),
    Endpoint("GET", "/livez", "Whether the daemon answers", STOKER, Life),
    Endpoint(
        "GET",
        "/readyz",
        "Whether requests are served at once",
        STOKER,
        Readiness,
        also=MappingProxyType({503: Readiness}),
    ),
    Endpoint("GET", "/status", "Everything that the daemon knows", STOKER, StatusReport),
    Endpoint("GET", "/openapi.json", "This document", STOKER),
    Endpoint("GET", "/metrics", "Metrics in Prometheus' text format", STOKER, media=TEXT),
    Endpoint("GET", "/", "A page for people", STOKER, media=HTML),
    Endpoint("GET", "/assets/{name}", "The page's files", STOKER),
    Endpoint("GET", "/events", "What the page shows, as it happens", STOKER, media=EVENTS),
    Endpoint("POST", "/actions/rewarm", "Warm again; for the page only", STOKER, RewarmReport),
    Endpoint("POST", "/actions/restart", "Replace the worker; for the page only", STOKER, Accepted),
)
