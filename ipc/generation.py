"""The worker socket's messages about answering a prompt: what is asked, and what comes back step by step.

Fields are only ever added, each with a default. Token ids are the model's vocabulary indices.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from .body import Body, Id, Result

Channel: TypeAlias = Literal["normal", "reasoning", "tool"]
"""What a text is: answer, reasoning, or a tool call that is not complete yet."""


# -- what a prompt is --------------------------------------------------------------------------------------


class ChatPrompt(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="chat", omit_defaults=True):
    """A conversation, rendered by the model's own chat template in the worker."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    template_args: dict[str, Any] = {}


class TextPrompt(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="text"):
    """Plain text, tokenized as it is, without a template."""

    text: str


class TokenPrompt(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="tokens"):
    """Token ids, used as they are."""

    tokens: tuple[int, ...]


Prompt: TypeAlias = ChatPrompt | TextPrompt | TokenPrompt


# -- how it is answered ------------------------------------------------------------------------------------


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the next token is chosen. Penalties and bias apply first, also to greedy choices (temperature 0).

    `temperature`, `top_p`, `top_k` and `min_p` matter only above temperature 0.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    top_k: int = 0
    """Only so many of the likeliest tokens are drawn from; 0: all."""
    min_p: float = 0.0
    """Tokens less likely than this share of the likeliest are not drawn; 0: all are."""
    presence_penalty: float = 0.0
    """Taken from the logit of each token that the answer has already, as in OpenAI's API."""
    frequency_penalty: float = 0.0
    """The same, for each time that the answer has it."""
    repetition_penalty: float = 1.0
    """Divides the positive logits, and multiplies the negative ones, of tokens in prompt and answer; 1: none."""
    logit_bias: dict[int, float] = {}
    """Added to the logits of these token ids."""


class JsonConstraint(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="json", omit_defaults=True):
    """The answer is one JSON value that fits a JSON Schema; without one, any JSON object."""

    schema: dict[str, Any] | bool | None = None
    or_call: bool = False
    """Or it calls tools of the prompt, whichever the model chooses."""


class ToolConstraint(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="tool", omit_defaults=True):
    """The answer calls a tool of the prompt: the one of this name, or any."""

    name: str | None = None


Constraint: TypeAlias = JsonConstraint | ToolConstraint
"""What the answer's text must be; tokens that would break it are never chosen."""


class Generate(Body, frozen=True, kw_only=True):
    """Answer a prompt; deltas come in `Step`s, then `Finished`. Progress stage: `prefill`.

    `emitted` are tokens that an earlier worker already produced for this request: they are taken as part of the
    prompt, their text is not sent again, and they count towards `max_tokens`.
    """

    METHOD: ClassVar[str] = "generate"

    prompt: Prompt
    max_tokens: int | None = None
    """None: up to the end of the context."""
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    emitted: tuple[int, ...] = ()
    logprobs: int | None = None
    """Log probabilities of the tokens chosen, and of so many of the likeliest at each position; None: none."""
    constraint: Constraint | None = None
    parallel_calls: bool = True
    """Whether the answer may hold more than one tool call; if not, it ends with the first."""
    keep: bool = False
    """The client will send more requests that begin alike: what they share is worth keeping warm."""
    probe: bool = False
    """A sign of life is wanted, no answer: nothing warm is used for it, and nothing of it is kept or learned."""


class CountTokens(Body, frozen=True, kw_only=True):
    """Ask how many tokens a prompt has; answered by `TokenCount`."""

    METHOD: ClassVar[str] = "count_tokens"

    prompt: Prompt


# -- what comes back ---------------------------------------------------------------------------------------


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call, complete. `arguments` is the text of a JSON object."""

    name: str
    arguments: str


class Likely(msgspec.Struct, frozen=True, kw_only=True):
    """A token and the logarithm of its probability, before temperature, penalties and constraints."""

    token: int
    bytes: tuple[int, ...]
    """Of its text, which may be part of a character."""
    logprob: float


class TokenLogprob(Likely, frozen=True, kw_only=True, omit_defaults=True):
    """A token that was chosen, with the likeliest ones at its place, the likeliest first."""

    top: tuple[Likely, ...] = ()


class Delta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one decoding step added to request `target`.

    `text` may be empty while `tokens` is not: half a character, the beginning of a stop word, or part of a tool
    call, which comes in `calls` once it is complete.
    """

    target: Id
    tokens: tuple[int, ...]
    text: str = ""
    channel: Channel = "normal"
    calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each of `tokens`, where the request asked for them."""


class Step(Body, frozen=True, kw_only=True):
    """Notification: one decoding step, with the deltas of all running sequences."""

    METHOD: ClassVar[str] = "step"

    deltas: tuple[Delta, ...]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts of one generation. `cached_tokens` of the prompt needed no prefill."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class Finished(Result, frozen=True, kw_only=True):
    """The generation ended; `text` is what was held back until now."""

    reason: Literal["stop", "length", "cancelled"]
    usage: Usage
    text: str = ""
    channel: Channel = "normal"
    stop: str | None = None
    """The stop text that was found; None where the model itself ended."""
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    held: tuple[Delta, ...] = ()
    """What else was held back, to be told before `text`; without tokens. In one message with the result, so that a
    worker that dies has told all of it or nothing."""


class TokenCount(Result, frozen=True, kw_only=True):
    """How many tokens a prompt has, as a generation would count them."""

    tokens: int
