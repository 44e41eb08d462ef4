"""From the bytes of a request to what the worker is asked; no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import msgspec

from ....ipc.messages import ChatPrompt, Generate, Prompt, TextPrompt, TokenPrompt
from ..fields import decoded, refuse_unless_neutral, require_shallow, wrong_value
from .messages import is_marked, rendered
from .sampling import MAX_CHOICES, repeated, sampling, stop_words, wants_usage
from .tools import chosen, json_constraint
from .types import CHOICES, COMPLETION_NEUTRAL, INSTEAD, NEUTRAL, ChatRequest, CompletionRequest

COMPLETION_TOKENS = 16
"""OpenAI's default length of a completion."""

RESERVED = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)
"""Arguments that say how a template is applied; they are not its own variables."""

_CHAT = msgspec.json.Decoder(ChatRequest)
_COMPLETION = msgspec.json.Decoder(CompletionRequest)


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A chat request, understood.

    Args:
        model: Its name, as the client wrote it.
        stream: Whether the answer is to be streamed.
        include_usage: Whether a stream is to end with the token counts.
        bodies: What the worker is asked: one generation for each choice.
        tools: Whether the answer may call tools.
    """

    model: str
    stream: bool
    include_usage: bool
    bodies: tuple[Generate, ...]
    tools: bool

    @property
    def body(self) -> Generate:
        """The first choice's."""
        return self.bodies[0]


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """A completion request, understood; the fields are a chat's. `n` choices in a row share a prompt."""

    model: str
    stream: bool
    include_usage: bool
    bodies: tuple[Generate, ...]
    n: int


def read_chat(data: bytes) -> ChatCall:
    """Understand a chat request.

    Raises:
        ApiError: 400, naming the field and what it may be.
    """
    request = decoded(_CHAT, data, CHOICES)
    refuse_unless_neutral(request, NEUTRAL, INSTEAD)
    body = _chat(request)
    return ChatCall(
        model=request.model,
        stream=bool(request.stream),
        include_usage=wants_usage(request),
        bodies=repeated(body, request.n or 1),
        tools=isinstance(body.prompt, ChatPrompt) and bool(body.prompt.tools),
    )


def read_completion(data: bytes) -> CompletionCall:
    """Understand a completion request.

    Raises:
        ApiError: 400, naming the field and what it may be.
    """
    request = decoded(_COMPLETION, data, CHOICES)
    refuse_unless_neutral(request, COMPLETION_NEUTRAL, INSTEAD)
    prompts, n = _prompts(request.prompt), request.n or 1
    if len(prompts) * n > MAX_CHOICES:
        raise wrong_value("prompt", f"asks for {len(prompts) * n} answers in all; at most {MAX_CHOICES} are possible")
    return CompletionCall(
        model=request.model,
        stream=bool(request.stream),
        include_usage=wants_usage(request),
        bodies=tuple(body for prompt in prompts for body in repeated(_completion(request, prompt), n)),
        n=n,
    )


# -- chats -------------------------------------------------------------------------------------------------


def _chat(request: ChatRequest) -> Generate:
    tools, constraint = chosen(request.tools or (), request.tool_choice)
    messages = rendered(request.messages)
    return Generate(
        prompt=ChatPrompt(messages=messages, tools=tools, template_args=_template_args(request)),
        max_tokens=_max_tokens(request),
        sampling=sampling(request),
        stop=stop_words(request),
        logprobs=_logprobs(request),
        constraint=constraint or json_constraint(request.response_format, or_call=bool(tools)),
        parallel_calls=request.parallel_tool_calls is not False,
        keep=is_marked(request.messages) or any(tool.cache_control for tool in request.tools or ()),
    )


def _max_tokens(request: ChatRequest) -> int | None:
    old, new = request.max_tokens, request.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise wrong_value("max_tokens", "and max_completion_tokens mean the same and differ: send one")
    return old if new is None else new


def _logprobs(request: ChatRequest) -> int | None:
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise wrong_value("top_logprobs", "needs logprobs: true beside it")
    return None


def _template_args(request: ChatRequest) -> dict[str, Any]:
    given = request.chat_template_kwargs or {}
    if clash := sorted(given.keys() & RESERVED):
        raise wrong_value(f"chat_template_kwargs.{clash[0]}", "is not the template's to be set: leave it out")
    require_shallow(given, "chat_template_kwargs")
    effort = request.reasoning_effort
    if effort is None:
        return given
    off = {"enable_thinking": False} if effort == "none" else {}
    return {"reasoning_effort": effort, **off, **given}


# -- completions -------------------------------------------------------------------------------------------


def _completion(request: CompletionRequest, prompt: Prompt) -> Generate:
    return Generate(
        prompt=prompt,
        max_tokens=COMPLETION_TOKENS if request.max_tokens is None else request.max_tokens,
        sampling=sampling(request),
        stop=stop_words(request),
        logprobs=request.logprobs,
    )


def _prompts(given: str | tuple[str | int | tuple[int, ...], ...]) -> tuple[Prompt, ...]:
    if isinstance(given, str):
        return (TextPrompt(text=given),)
    if len({type(each) for each in given}) != 1:
        raise wrong_value("prompt", "is empty or mixed: send a text, token ids, or a list of either")
    if _are_ids(given):
        return (TokenPrompt(tokens=given),)
    return tuple(_listed(each, f"prompt[{index}]") for index, each in enumerate(given))


def _are_ids(given: tuple[str | int | tuple[int, ...], ...]) -> TypeGuard[tuple[int, ...]]:
    return isinstance(given[0], int)


def _listed(each: str | int | tuple[int, ...], path: str) -> Prompt:
    if isinstance(each, str):
        return TextPrompt(text=each)
    if isinstance(each, tuple) and each:
        return TokenPrompt(tokens=each)
    raise wrong_value(path, "is empty: at least one token id is needed")
